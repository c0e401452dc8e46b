// What draws a user to the page: unread messages in the title and on the app's icon, and notifications, if the page wants them.

export class Attention {
  #options
  #world

  /** @param {Pick<import('./jam.js').Options, 'badge' | 'notify'>} options @param {import('./world.js').World} world */
  constructor (options, world) {
    this.#options = options
    this.#world = world
  }

  /** @param {Map<string, number>} unread */
  show (unread) {
    if (this.#options.badge === false) return
    const { document, navigator } = this.#world
    const all = [...unread.values()].reduce((sum, count) => sum + count, 0)
    if (document) document.title = (all ? `(${all}) ` : '') + document.title.replace(/^\(\d+\) /, '')
    // Missing in some browsers, denied in others.
    navigator?.setAppBadge?.(all).catch(() => {})
  }

  /** @param {import('./jam.js').Message} message */
  notify (message) {
    const { document, Notification } = this.#world
    if (!this.#options.notify || !document?.hidden || Notification?.permission !== 'granted') return
    try {
      const shown = this.#options.notify(message)
      if (shown) new Notification(shown.title, { ...shown, tag: message.friend })
    } catch {} // phones allow it to service workers only
  }
}
