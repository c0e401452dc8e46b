// The list of friends as the server tells it, in parts (PROTOCOL.md, section 10).

/** @typedef {{ user: string, name: string, blocked: boolean, publicKey: string | null }} Entry  What is known of a friend, apart from whether they are online. */

/** At most 500 friends a part. */
const MAX_PARTS = 200

export class FriendList {
  /** @type {Entry[]} */ #list = []
  #next = 1

  /**
   * The whole list with its last part; null until then. A part that does not follow the one before begins nothing: the server tells
   * the list again when it changes.
   *
   * @param {{ [key: string]: unknown } | null} payload
   * @returns {Entry[] | null}
   */
  take (payload) {
    const { friends, part, parts } = payload ?? {}
    if (!Array.isArray(friends) || typeof part !== 'number' || typeof parts !== 'number' || parts > MAX_PARTS) return null
    if (part === 1) this.#list = []
    else if (part !== this.#next) return null
    this.#next = part + 1
    for (const friend of friends) {
      if (typeof friend?.user !== 'string') continue
      const { user, name, blocked, publicKey } = friend
      this.#list.push({ user, name: typeof name === 'string' && name ? name : user, blocked: blocked === true, publicKey: typeof publicKey === 'string' ? publicKey : null })
    }
    if (part < parts) return null
    this.#next = 1
    return this.#list
  }
}
