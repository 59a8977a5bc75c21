// The page: gives the component what a notebook would, a model to talk to, over a websocket.
import player from "./player.js";

class SocketModel {
  #handlers = new Set();
  #waiting = [];
  #values = {};

  constructor(address) {
    this.socket = new WebSocket(address);
    this.socket.binaryType = "arraybuffer";
    this.socket.onopen = () => this.#waiting.splice(0).forEach((text) => this.socket.send(text));
    this.socket.onmessage = ({ data }) => this.#emit(...unpack(data));
    const text = "The player has stopped. Start it again, then reload.";
    this.socket.onclose = () => this.#emit({ type: "closed", text }, []);
  }
  get() {} // there is no other state than what is sent
  set() {}
  save_changes() {}
  on(event, handler) { if (event === "msg:custom") this.#handlers.add(handler); }
  off(event, handler) { handler ? this.#handlers.delete(handler) : this.#handlers.clear(); }
  send(content) {
    const text = JSON.stringify(content);
    if (this.socket.readyState === WebSocket.OPEN) this.socket.send(text);
    else if (this.socket.readyState === WebSocket.CONNECTING) this.#waiting.push(text);
  }
  #emit(content, buffers) { this.#handlers.forEach((handler) => handler(content, buffers)); }
}

// the length of the JSON, the JSON with the buffers' sizes, the buffers
function unpack(data) {
  const length = new DataView(data).getUint32(0, true);
  const { content, sizes } = JSON.parse(new TextDecoder().decode(new Uint8Array(data, 4, length)));
  let at = 4 + length;
  return [content, sizes.map((size) => new DataView(data, (at += size) - size, size))];
}

const address = new URL("session", location.href.replace(/^http/, "ws"));
player.render({ model: new SocketModel(address), el: document.body });
document.querySelector(".wm-player").focus();
