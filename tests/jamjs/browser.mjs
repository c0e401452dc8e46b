// A browser whose clock, chance, network and storage tests drive: what jam.js takes as its world. Tabs of one Browser share
// IndexedDB, Web Locks and BroadcastChannel; a tab that is killed takes nothing with it but what it had in memory.

import { IDBFactory, IDBKeyRange } from 'fake-indexeddb'
import { Socket } from './socket.mjs'

globalThis.IDBKeyRange = IDBKeyRange

/** Lets everything happen that waits for no clock. */
export async function settle () { for (let round = 0; round < 300; round++) await new Promise((done) => setImmediate(done)) }

export class Browser {
  constructor ({ locks = true, channel = true, indexedDB = new IDBFactory() } = {}) {
    this.indexedDB = indexedDB
    this.queues = locks ? new Map() : null
    this.channels = channel ? new Set() : null
    this.time = 0
    this.wall = Date.parse('2026-01-31T12:00:00Z')
    this.timers = []
    this.tabs = []
    /** What tabs have told each other. */
    this.told = []
  }

  tab () {
    const tab = new Tab(this)
    this.tabs.push(tab)
    return tab
  }

  /** Time passes, timer by timer. */
  async advance (ms) {
    const end = this.time + ms
    await settle()
    for (;;) {
      this.timers.sort((a, b) => a.due - b.due || a.number - b.number)
      if (!this.timers.length || this.timers[0].due > end) break
      const timer = this.timers.shift()
      this.time = Math.max(this.time, timer.due)
      timer.then()
      await settle()
    }
    this.time = end
  }

  wait (tab, then, ms) {
    const timer = { tab, then, due: this.time + ms, number: ++Browser.timers }
    this.timers.push(timer)
    return timer
  }

  clear (timer) { this.timers = this.timers.filter((other) => other !== timer) }

  request (name, { signal } = {}, work, tab) {
    const queue = this.queues.get(name) ?? []
    this.queues.set(name, queue)
    return new Promise((resolve, reject) => {
      const request = { tab, run: () => { request.held = true; Promise.resolve(work({})).then(resolve, reject).finally(() => this.release(name, request)) } }
      queue.push(request)
      signal?.addEventListener('abort', () => {
        if (request.held) return
        this.release(name, request)
        reject(new DOMException('', 'AbortError'))
      })
      if (queue.length === 1) queueMicrotask(() => request.run())
    })
  }

  release (name, request) {
    const queue = this.queues.get(name)
    const first = queue[0] === request
    queue.splice(queue.indexOf(request) >>> 0, queue.includes(request) ? 1 : 0)
    if (first && queue.length) queue[0].run()
  }
}
Browser.timers = 0

export class Tab {
  constructor (browser) {
    const tab = this
    this.browser = browser
    this.alive = true
    this.sockets = []
    this.chance = 0.5
    this.notified = []
    this.badges = []
    this.window = new EventTarget()
    this.document = Object.assign(new EventTarget(), { visibilityState: 'visible', hidden: false, title: 'Chat' })
    this.WebSocket = class extends Socket {
      constructor (url, protocol) {
        super(url, protocol)
        tab.sockets.push(this)
      }
    }
    this.BroadcastChannel = browser.channels && class {
      constructor (name) {
        this.name = name
        this.tab = tab
        browser.channels.add(this)
      }

      postMessage (data) {
        if (!tab.alive) return
        const copy = structuredClone(data)
        browser.told.push(copy)
        for (const other of browser.channels) {
          if (other !== this && other.name === this.name) setImmediate(() => { if (other.tab.alive && browser.channels.has(other)) other.onmessage?.({ data: copy }) })
        }
      }

      close () { browser.channels.delete(this) }
    }
    this.locks = browser.queues && { request: (name, options, work) => browser.request(name, options, work, tab) }
    this.navigator = { setAppBadge: async (count) => { this.badges.push(count) } }
    this.Notification = class {
      static permission = 'granted'
      constructor (title, options) { tab.notified.push({ title, ...options }) }
    }
  }

  indexedDB () {
    const { indexedDB } = this.browser
    if (indexedDB === null) throw new DOMException('denied', 'SecurityError')
    return indexedDB
  }

  setTimeout (then, ms) { return this.browser.wait(this, then, ms) }
  clearTimeout (timer) { this.browser.clear(timer) }
  now () { return this.browser.wall + this.browser.time }
  uptime () { return this.browser.time }
  random () { return typeof this.chance === 'function' ? this.chance() : this.chance }
  randomBytes (count) { return crypto.getRandomValues(new Uint8Array(count)) }

  get socket () { return this.sockets.at(-1) }

  /** The process is gone: no timer, no event, no lock of it is left, and its sockets are dead. */
  kill () {
    const { browser } = this
    this.alive = false
    browser.timers = browser.timers.filter(({ tab }) => tab !== this)
    for (const channel of browser.channels ?? []) if (channel.tab === this) browser.channels.delete(channel)
    for (const socket of this.sockets) socket.kill()
    for (const [name, queue] of browser.queues ?? []) for (const request of [...queue]) if (request.tab === this) browser.release(name, request)
  }

  show (visible) {
    this.document.visibilityState = visible ? 'visible' : 'hidden'
    this.document.hidden = !visible
    this.document.dispatchEvent(new Event('visibilitychange'))
  }
}
