// The site's search runs in a worker, which a page opened from disk may not start: it runs in a hidden frame instead.
// Named so that mkdocs-material's plugin `offline` takes this file instead of one that it loads from another host.
"use strict";
if (location.protocol === "file:")
  window.Worker = class extends EventTarget {
    constructor(script) {
      super();
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.loaded = new Promise((resolve) => (this.frame.onload = () => this.run(script, resolve)));
      document.body.append(this.frame);
    }

    run(script, resolve) {
      const { contentWindow, contentDocument } = this.frame;
      contentWindow.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }));
      const element = contentDocument.createElement("script");
      element.src = new URL(script, location);
      element.onload = resolve;
      contentDocument.body.append(element);
    }

    async postMessage(data) {
      await this.loaded;
      this.frame.contentWindow.dispatchEvent(new MessageEvent("message", { data }));
    }
  };
