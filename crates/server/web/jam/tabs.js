// Several tabs of one user: one of them leads, which is to have the connection; all are told what happens.
//
// With Web Locks the tab that holds the lock leads, and the browser hands it on when that tab is gone. Without them (an insecure
// origin) the others ask the leader whether it is there, every ASK_MS; one that gets no answer leads. Invariants: with Web Locks two
// tabs never lead together; without, they may for a moment, and that with the smaller name goes on. A page that the browser puts
// aside, to show it again perhaps, does not lead.

/**
 * What tabs tell each other.
 *
 * @typedef {{ [T in keyof import('./jam.js').Events]: { event: T, detail: import('./jam.js').Events[T] } }[Exclude<keyof import('./jam.js').Events, 'message' | 'update' | 'leader' | 'friends' | 'state'>]
 *   | { event: 'state', detail: import('./jam.js').State, mark: string }
 *   | { event: 'friends', detail: { friends: import('./friends.js').Entry[] } }
 *   | import('./store.js').Kept | { start: true } | { forget: true } | { hello: true } | { aside: true } } Told
 * `mark`: whose token it is about. `aside`: a tab that was refused is to let one with another token try.
 */

/** @typedef {{ tab: string, is: 'there?' | 'here' | 'gone' }} Election */

/** @typedef {{ lead: (alone: boolean) => void, follow: () => void, hear: (told: Told) => void, back: () => void }} Listener  `alone`: no other tab can lead as well. `back`: it has heard nothing for a while. */

const PAGE = ['pagehide', 'pageshow']
const ASK_MS = 3000
const ANSWER_MS = 1000
/** For the first question, which keeps the user waiting. */
const FIRST_ANSWER_MS = 300

export class Tabs {
  #world
  #name
  #listener
  #tab
  /** @type {BroadcastChannel | undefined} */ #channel
  #leads = false
  #joined = false
  /** There are no Web Locks. */
  #asks = false
  #over = false
  /** @type {any} */ #timer
  /** @type {(() => void) | undefined} */ #release
  #leaving = new AbortController()
  /** The page goes, or is put aside: it leads no more. If it is shown again, it has heard nothing for a while. */
  #onPage = (/** @type {Event} */ { type }) => {
    if (type === 'pagehide') return this.aside()
    this.join()
    this.#listener.back()
  }

  /** @param {string} name @param {import('./world.js').World} world @param {Listener} listener */
  constructor (name, world, listener) {
    this.#name = name
    this.#world = world
    this.#listener = listener
    this.#tab = String(world.random())
    try {
      this.#channel = world.BroadcastChannel && new world.BroadcastChannel(name)
    } catch {} // denied: this tab is for itself
    if (this.#channel) this.#channel.onmessage = ({ data }) => this.#over || ('tab' in data ? this.#hear(data) : listener.hear(data))
  }

  /** Is to lead when its turn comes. */
  join () {
    if (this.#joined) return
    this.#joined = true
    this.#leaving = new AbortController()
    const { locks, window } = this.#world
    for (const type of PAGE) window?.addEventListener(type, this.#onPage)
    this.post({ hello: true })
    if (!locks) return this.#joinByAsking()
    locks.request(this.#name, { signal: this.#leaving.signal }, () => {
      if (!this.#joined) return
      this.#lead(true)
      return new Promise((/** @type {(value?: undefined) => void} */ resolve) => { this.#release = resolve })
    }).catch((error) => { if (error?.name !== 'AbortError' && this.#joined) this.#joinByAsking() })
  }

  /** Does not lead any more, nor before it joins again. It goes on to hear. */
  aside () {
    if (this.#leads) {
      this.#listener.follow()
      this.#elect('gone')
    }
    this.#leads = this.#joined = this.#asks = false
    this.#world.clearTimeout(this.#timer)
    this.#leaving.abort()
    this.#release?.()
  }

  leave () {
    for (const type of PAGE) this.#world.window?.removeEventListener(type, this.#onPage)
    this.aside()
    this.#over = true
    this.#channel?.close()
  }

  /** @param {Told | Election} told */
  post (told) {
    try {
      if (!this.#over) this.#channel?.postMessage(told)
    } catch {} // the other tabs read the store
  }

  /** @param {boolean} alone */
  #lead (alone) {
    this.#leads = true
    this.#listener.lead(alone)
  }

  // Without Web Locks

  #joinByAsking () {
    if (!this.#channel) return this.#lead(true)
    this.#asks = true
    this.#ask(FIRST_ANSWER_MS)
  }

  /** @param {number} ms  How long an answer may take. */
  #ask (ms) {
    this.#elect('there?')
    this.#wait(ms, () => {
      this.#elect('here')
      this.#lead(false)
    })
  }

  /** @param {number} ms @param {() => void} then */
  #wait (ms, then) {
    this.#world.clearTimeout(this.#timer)
    this.#timer = this.#world.setTimeout(then, ms)
  }

  /** @param {Election['is']} is */
  #elect (is) { this.post({ tab: this.#tab, is }) }

  /** @param {Election} election */
  #hear ({ tab, is }) {
    if (!this.#asks) return
    if (this.#leads) {
      if (is === 'gone') return
      if (is === 'here' && tab < this.#tab) {
        this.#leads = false
        this.#listener.follow()
      } else return this.#elect('here')
    }
    if (is === 'here') this.#wait(ASK_MS, () => this.#ask(ANSWER_MS))
    else if (is === 'gone') this.#ask(this.#world.random() * FIRST_ANSWER_MS)
  }
}
