// Search runs in a worker, and browsers start none for a page that was opened from a disk.
// There, run the worker's script in a hidden frame that looks like a worker from inside and outside.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super()
      const frame = document.createElement("iframe")
      frame.hidden = true
      document.body.append(frame)
      this.inside = frame.contentWindow
      const load = (script) =>
        new Promise((done) => {
          const element = this.inside.document.createElement("script")
          element.src = script
          element.onload = done
          this.inside.document.body.append(element)
        })
      this.inside.importScripts = (...urls) => Promise.all(urls.map(load))
      this.inside.postMessage = (data) => this.dispatchEvent(new MessageEvent("message", { data }))
      this.ready = load(url)
    }
    postMessage(data) {
      this.ready.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })))
    }
  }
}
