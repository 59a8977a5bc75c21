// What keys do to an action of many numbers. No page here: a test runs it alone.

const AXES = [ // keys for -1 and +1 of each number of a group
  [["a", "ArrowLeft"], ["d", "ArrowRight"]], [["s", "ArrowDown"], ["w", "ArrowUp"]],
  [["j"], ["l"]], [["k"], ["i"]], [["f"], ["h"]], [["g"], ["t"]],
];

/** The action, of which keys move one group of numbers. What is pressed counts for a step, however short it was. */
class Keys {
  constructor(size) {
    Object.assign(this, { action: Array(size).fill(0), group: 0, held: new Map() });
    Object.assign(this, { fresh: new Set(), late: new Map() }); // not sent yet; released before they were
  }

  get groups() { return Math.ceil(this.action.length / AXES.length); }

  /** The number that a key moves and where to; undefined where it moves none. */
  move(key) {
    for (const [place, ends] of AXES.entries()) {
      const i = this.group * AXES.length + place, end = ends.findIndex((keys) => keys.includes(key));
      if (end >= 0 && i < this.action.length) return [i, 2 * end - 1];
    }
  }

  /** Set a number by hand. */
  set(i, value) {
    this.late.delete(i);
    this.action[i] = value;
  }

  press(key) {
    const [i, value] = this.move(key);
    this.held.set(key, [i, value]);
    this.fresh.add(i);
    this.set(i, value);
  }

  /** The number goes back, to another key's that is held; but not before it was sent. Whether it has. */
  release(key) {
    if (!this.held.has(key)) return false;
    const [i] = this.held.get(key);
    this.held.delete(key);
    const value = [...this.held.values()].filter(([j]) => j === i).pop()?.[1] ?? 0;
    if (this.fresh.has(i)) this.late.set(i, value);
    else this.action[i] = value;
    return !this.fresh.has(i);
  }

  /** The action has been sent: what was released meanwhile goes back now. */
  sent() {
    for (const [i, value] of this.late) this.action[i] = value;
    this.fresh.clear();
    this.late.clear();
  }

  choose(group) {
    this.drop();
    this.group = Math.min(this.groups - 1, Math.max(0, group));
  }

  /** All keys are released. */
  drop() {
    for (const key of [...this.held.keys()]) this.release(key);
  }

  zero() {
    this.held.clear();
    this.late.clear();
    this.action.fill(0);
  }
}
