// The list of friends as the server tells it, in parts (PROTOCOL.md, section 10).

/** @typedef {{ user: string, name: string, blocked: boolean, publicKey: string | null }} Entry  What is known of a friend, apart from whether they are online. */

/** What the server sends at most, of 64 KiB each. */
const MAX_PARTS = 512
const MAX_FRIENDS = 65_536

export class FriendList {
  /** @type {Entry[]} */ #list = []
  /** The part that is to come, and of which list. */
  #next = ''

  /**
   * The whole list with its last part; null until then. A part that does not follow the one before begins nothing, and ends what was
   * begun: the server tells the list again when it changes.
   *
   * @param {{ [key: string]: unknown } | null} payload
   * @returns {Entry[] | null}
   */
  take (payload) {
    const { friends, part, parts, timestamp } = payload ?? {}
    if (!Array.isArray(friends) || typeof part !== 'number' || typeof parts !== 'number' || parts > MAX_PARTS) return null
    const name = (/** @type {number} */ part) => `${part} ${parts} ${typeof timestamp === 'string' && timestamp}`
    if (part === 1) this.#list = []
    else if (this.#next !== name(part)) {
      this.#next = ''
      return null
    }
    this.#next = name(part + 1)
    for (const friend of friends) {
      if (typeof friend?.user !== 'string' || this.#list.length >= MAX_FRIENDS) continue
      const { user, name, blocked, publicKey } = friend
      this.#list.push({ user, name: typeof name === 'string' && name ? name : user, blocked: blocked === true, publicKey: typeof publicKey === 'string' ? publicKey : null })
    }
    if (part < parts) return null
    this.#next = ''
    return this.#list
  }
}
