// The part of the open conversation that is drawn. It moves with the reader, and is bounded, however much was written.
//
// Invariants: `messages` follow each other in the conversation without a gap, each once, by `order`; they are at most MAX_MESSAGES, and
// at most MAX_BYTES but for one. Of what comes after them only the orders are known: `#later`, at most MAX_LATER.

/** So many are fetched at once. */
const PAGE = 200

/** So many are loaded by themselves, for searching in the page and for scrolling without a halt; what is older comes when it is scrolled to. */
const AT_EASE = 1200
const BREATH_MS = 50

const MAX_MESSAGES = 2000
const MAX_BYTES = 32 * 1024 * 1024
const AT_EASE_BYTES = 8 * 1024 * 1024

/** As many as jam.js keeps of a friend. */
const MAX_LATER = 10_000

/** As many as an outbox holds. */
const MAX_GONE = 1000

const weight = ({ content }) => typeof content === 'string' ? 2 * content.length : content.size

export class Window {
  /** @type {import('../jam.js').Message[]} */ messages = []
  isLoaded = false
  isClosed = false
  /** Why its messages cannot be read. */
  failure = null
  hasEarlier = false
  /** The end is out of sight. */
  isAbove = false
  /** So many have come out of sight. */
  missed = 0
  /** `order` of the last message before those that are new; null if none is. @type {number | null} */
  mark = null
  #jam
  #changed
  #bytes = 0
  /** @type {number[]} */ #later = []
  /** What has come while the newest were being read. @type {import('../jam.js').Message[] | null} */ #meanwhile = null
  /** Cancelled, and perhaps in a page that is being read. @type {Set<number>} */ #gone = new Set()
  /** A load that is overtaken by another one changes nothing. */
  #turn = 0
  #isBusy = false

  /** @param {import('../jam.js').Jam} jam @param {string} friend @param {() => void} changed */
  constructor (jam, friend, changed) {
    this.#jam = jam
    this.friend = friend
    this.#changed = changed
  }

  get hasLater () { return this.#later.length > 0 }

  get #newest () { return this.#later.at(-1) ?? this.messages.at(-1)?.order ?? -1 }

  /** Shows the end: at first, and for who jumps to it. `unread`: so many are to be in it. */
  async open (unread = 0) {
    const turn = ++this.#turn
    const limit = Math.max(PAGE, Math.min(unread + 10, AT_EASE))
    this.#meanwhile = []
    try {
      const page = await this.#jam.history(this.friend, { limit })
      if (turn !== this.#turn) return
      const fresh = this.#meanwhile
      this.messages = []
      this.#bytes = 0
      this.#later = []
      this.#join([...page, ...fresh])
      this.hasEarlier = page.length === limit
      this.#cut('start')
      this.isLoaded = true
      this.failure = null
    } catch (error) {
      if (turn !== this.#turn) return
      this.failure = error
      throw error
    } finally {
      if (turn === this.#turn) this.#meanwhile = null
      this.#changed()
    }
  }

  /** Nobody looks at it any more: what is being loaded changes nothing, and nothing more is. */
  close () {
    this.#turn++
    this.isClosed = true
  }

  /** Loads what is older, a page at a time, while the reader is at the end. */
  async ease () {
    const turn = this.#turn
    while (!this.isClosed && this.hasEarlier && this.messages.length < AT_EASE && this.#bytes < AT_EASE_BYTES) {
      await new Promise((resolve) => setTimeout(resolve, BREATH_MS))
      if (turn !== this.#turn || this.hasLater) return
      await this.earlier()
    }
  }

  earlier () {
    if (!this.hasEarlier) return
    return this.#alone(async (turn) => {
      const page = await this.#jam.history(this.friend, { before: this.messages[0]?.order, limit: PAGE })
      if (turn !== this.#turn) return
      this.#join(page)
      this.hasEarlier = page.length === PAGE
      this.#cut(this.isAbove ? 'end' : 'start')
    })
  }

  later () {
    if (!this.hasLater) return
    return this.#alone(async (turn) => {
      const limit = Math.min(PAGE, this.#later.length)
      const [after, next, last] = [this.#newestShown, this.#later[0], this.#later[limit - 1]]
      // Messages may have been stored, and not told of yet: they are among the newest.
      const wanted = limit < this.#later.length ? limit : 2 * PAGE
      const page = await this.#jam.history(this.friend, { before: this.#later[limit], limit: wanted })
      if (turn !== this.#turn) return
      if (page.length === wanted && page[0].order > next) return await this.open()
      const found = page.filter(({ order }) => order > after)
      const shown = Math.max(last, found.at(-1)?.order ?? last)
      this.#later = this.#later.filter((order) => order > shown)
      this.#join(found)
      this.#cut('start')
    })
  }

  get #newestShown () { return this.messages.at(-1)?.order ?? -1 }

  /** One load at a time, and none beside that of the end. @param {(turn: number) => Promise<void>} load */
  async #alone (load) {
    if (this.#isBusy || this.#meanwhile) return
    this.#isBusy = true
    try {
      await load(this.#turn)
    } finally {
      this.#isBusy = false
      this.#changed()
    }
  }

  /** A new message of this conversation: false if it is known. @param {import('../jam.js').Message} message */
  arrives (message) {
    const { order } = message
    this.#meanwhile?.push(message)
    const later = this.#later
    if (this.#gone.has(order)) return false
    if (order <= this.#newest && (this.messages.some((known) => known.order === order) || later.includes(order))) return false
    const first = this.messages[0]?.order ?? order
    if (order < first) this.hasEarlier = true // it was stored before what is drawn was read, and is told of only now
    else if (later.length === 0) {
      this.#join([message])
      this.#cut(this.isAbove ? 'end' : 'start')
    } else {
      later.push(order)
      if (later[later.length - 2] > order) later.sort((one, other) => one - other)
      if (later.length > MAX_LATER) later.shift()
    }
    return true
  }

  /** An own message has got further, or is gone. @param {import('../jam.js').Message} message */
  updates (message) {
    const { order, state } = message
    const isIt = (known) => known.order === order
    if (this.#meanwhile?.some(isIt)) this.#meanwhile = this.#meanwhile.map((known) => isIt(known) ? message : known)
    if (state === 'cancelled') {
      this.#gone = new Set([...this.#gone, order].slice(-MAX_GONE))
      this.#bytes -= this.messages.filter(isIt).reduce((sum, known) => sum + weight(known), 0)
      this.messages = this.messages.filter((known) => !isIt(known))
      this.#later = this.#later.filter((known) => known !== order)
    } else if (this.messages.some(isIt)) this.messages = this.messages.map((known) => isIt(known) ? message : known)
  }

  /** What was stored and not told of. */
  async catchUp () {
    if (!this.isLoaded || this.#meanwhile) return await this.open()
    const turn = this.#turn
    const newest = this.#newest
    const missed = []
    for (let before; ;) {
      const page = await this.#jam.history(this.friend, { before, limit: PAGE })
      if (turn !== this.#turn) return
      for (const known of page) if (known.order <= newest) this.updates(known)
      const fresh = page.filter(({ order }) => order > newest)
      missed.unshift(...fresh)
      if (fresh.length < PAGE) break
      if (missed.length > MAX_MESSAGES) return await this.open()
      before = page[0].order
    }
    for (const message of missed) this.arrives(message)
  }

  /** @param {import('../jam.js').Message[]} more */
  #join (more) {
    const isNext = more.length === 1 && more[0].order > this.#newestShown
    const known = new Set(isNext ? this.#gone : [...this.#gone, ...this.messages.map(({ order }) => order)])
    const fresh = more.filter(({ order }) => !known.has(order) && known.add(order))
    this.messages = [...this.messages, ...fresh]
    if (!isNext) this.messages.sort((one, other) => one.order - other.order)
    for (const message of fresh) this.#bytes += weight(message)
  }

  /** What is too much goes, far from the reader. @param {'start' | 'end'} from */
  #cut (from) {
    let [start, end] = [0, this.messages.length]
    while (end - start > 1 && (end - start > MAX_MESSAGES || this.#bytes > MAX_BYTES)) {
      this.#bytes -= weight(this.messages[from === 'start' ? start++ : --end])
    }
    if (start > 0) this.hasEarlier = true
    const cut = this.messages.slice(end).map(({ order }) => order)
    if (cut.length > 0) this.#later = [...cut, ...this.#later].slice(-MAX_LATER)
    if (start > 0 || cut.length > 0) this.messages = this.messages.slice(start, end)
  }
}
