// Loaded before terminal.js, which takes over when the page is there. What is prepared for it here:
"use strict";
(() => {
  const { nonce } = document.currentScript;
  const PIECE = 8192; // characters of one message: a server takes no large ones

  // The styles that it makes, and no others, pass the policy of the page.
  const make = Document.prototype.createElement;
  Document.prototype.createElement = function (...words) {
    const element = make.apply(this, words);
    if (element instanceof HTMLStyleElement) element.nonce = nonce;
    return element;
  };

  // It sets up drawing by WebGL, fails for good where there is none, and draws by Canvas in the end. So it gets a WebGL
  // that draws nothing, everywhere: what is tested is what runs.
  const nothing = new Proxy(function () {}, {
    get: (_, key) => (key === Symbol.toPrimitive ? () => 16 : nothing),
    set: () => true,
    apply: () => nothing,
  });
  const context = HTMLCanvasElement.prototype.getContext;
  HTMLCanvasElement.prototype.getContext = function (kind, ...words) {
    return kind === "webgl2" ? nothing : context.call(this, kind, ...words);
  };

  window.WebSocket = class extends WebSocket {
    constructor(url) {
      super(url);
      this.addEventListener("open", () => document.querySelector(".xterm-helper-textarea").focus());
      this.addEventListener("close", (event) => {
        document.getElementById("terminal").inert = true; // else it would keep the keys from the rest of the page
        const lost = event.wasClean ? "" : "the connection was lost, or this browser is logged in no more";
        document.getElementById("reason").textContent = event.reason || lost;
      });
    }

    // A paste goes in pieces, none of which ends within a character.
    send(text) {
      if (text.length <= PIECE) return super.send(text);
      const [kind, data] = JSON.parse(text);
      const whole = data.replace(/\p{Surrogate}/gu, "\ufffd");
      for (let from = 0, to; from < whole.length; from = to) {
        to = from + PIECE;
        if (/[\ud800-\udbff]/.test(whole[to - 1])) to -= 1;
        super.send(JSON.stringify([kind, whole.slice(from, to)]));
      }
    }
  };
})();
