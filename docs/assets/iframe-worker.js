// From the disk a page may start no worker, and the search of these pages is one. Here it runs in a hidden frame instead.
// The theme would fetch such a script from a server of others; this one is ours, so that the pages ask nobody.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super()
      const waiting = [], frame = document.createElement("iframe")
      this.send = message => waiting.push(message)
      frame.hidden = true
      frame.srcdoc = `<script>
        self.postMessage = data => parent.dispatchEvent(new CustomEvent("from-worker", {detail: data}))
        self.importScripts = (...addresses) => addresses.reduce((before, src) => before.then(() => new Promise(then => {
          const script = document.createElement("script")
          script.src = src; script.onload = then; document.head.appendChild(script)
        })), Promise.resolve())
      </script><script src="${new URL(address, document.baseURI)}"></script>`
      window.addEventListener("from-worker", event => {
        const found = new MessageEvent("message", {data: event.detail})
        this.dispatchEvent(found)
        if (this.onmessage) this.onmessage(found)
      })
      frame.onload = () => {
        this.send = data => frame.contentWindow.dispatchEvent(new MessageEvent("message", {data}))
        waiting.forEach(this.send)
      }
      document.body.appendChild(frame)
    }
    postMessage(data) { this.send(data) }
    terminate() {}
  }
}
