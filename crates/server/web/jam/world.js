// The browser as an argument: clock, chance, sockets and what tabs share. Nothing else in jam.js reaches for a global of the
// browser, so that tests decide what the time is and what a socket says.

/**
 * @typedef {object} World
 * @property {typeof WebSocket} WebSocket
 * @property {() => IDBFactory | undefined} indexedDB  Throws where it is denied.
 * @property {LockManager | undefined} locks  Missing on insecure origins.
 * @property {typeof BroadcastChannel | undefined} BroadcastChannel
 * @property {(then: () => void, ms: number) => any} setTimeout
 * @property {(timer: any) => void} clearTimeout
 * @property {() => number} now  Milliseconds since 1970; may be wrong and may step.
 * @property {() => number} uptime  Milliseconds that only go forward.
 * @property {() => number} random  From 0 to 1.
 * @property {(count: number) => Uint8Array} randomBytes
 * @property {Window | undefined} window
 * @property {Document | undefined} document
 * @property {Navigator | undefined} navigator
 * @property {typeof Notification | undefined} Notification
 */

/** @returns {World} */
export const browser = () => {
  const { WebSocket, BroadcastChannel, Notification, navigator, window, document } = globalThis
  return {
    WebSocket,
    BroadcastChannel,
    Notification,
    navigator,
    window,
    document,
    locks: navigator?.locks,
    indexedDB: () => globalThis.indexedDB,
    setTimeout: (then, ms) => setTimeout(then, ms),
    clearTimeout: (timer) => clearTimeout(timer),
    now: () => Date.now(),
    uptime: () => performance.now(),
    random: () => Math.random(),
    randomBytes: (count) => crypto.getRandomValues(new Uint8Array(count))
  }
}

/**
 * What is promised, if it comes in time; else a TimeoutError.
 *
 * @template T
 * @param {World} world
 * @param {number} ms
 * @param {Promise<T> | T} promise
 * @param {string} [message]
 * @returns {Promise<T>}
 */
export function within (world, ms, promise, message = 'no answer in time') {
  /** @type {any} */ let timer
  /** @type {Promise<never>} */ const late = new Promise((_, reject) => { timer = world.setTimeout(() => reject(new DOMException(message, 'TimeoutError')), ms) })
  return Promise.race([promise, late]).finally(() => world.clearTimeout(timer))
}

/** A random UUID; `crypto.randomUUID` is missing on insecure origins. @param {World} world */
export function uuid (world) {
  const bytes = world.randomBytes(16)
  bytes[6] = bytes[6] & 15 | 64
  bytes[8] = bytes[8] & 63 | 128
  return hex(bytes).replace(/(.{8})(.{4})(.{4})(.{4})/, '$1-$2-$3-$4-')
}

/** @param {Uint8Array} bytes */
export const hex = (bytes) => Array.from(bytes, (byte) => byte.toString(16).padStart(2, '0')).join('')
