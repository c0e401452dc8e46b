// What a message holds: a payload to what is stored and shown, and content to what goes out. A payload may be anything that a
// friend has written: nothing here throws at it, and what cannot be understood is shown as it came.

/** As PROTOCOL.md, section 10, has it; a longer id, or none, identifies nothing. */
const MAX_ID_BYTES = 256
/** What a `type` that is text may have. */
const MAX_TYPE_CHARS = 64

const lenient = new TextDecoder('utf-8', { ignoreBOM: true })

/**
 * @typedef {object} Seen  What is stored of content.
 * @property {'text' | 'picture' | 'other'} kind
 * @property {string | Uint8Array<ArrayBuffer>} content  Bytes if it is a picture.
 * @property {string} [mime]  Of a picture.
 */

/** @param {Uint8Array} bytes */
export const textOf = (bytes) => lenient.decode(bytes)

/** null if it is no JSON object. @param {string} text @returns {import('./jam.js').Payload | null} */
export function parse (text) {
  try {
    const payload = JSON.parse(text)
    return typeof payload === 'object' && !Array.isArray(payload) ? payload : null
  } catch {
    return null
  }
}

/** @param {unknown} id @returns {string | null} */
export function idOf (id) {
  if (typeof id !== 'string' && !Number.isSafeInteger(id)) return null // beyond that, two numbers are one
  const text = String(id)
  return text && new TextEncoder().encode(text).length <= MAX_ID_BYTES ? text : null
}

/** @param {unknown} type @returns {string | number | null} */
export const typeOf = (type) => typeof type === 'number' || (typeof type === 'string' && type.length <= MAX_TYPE_CHARS) ? type : null

/** @param {unknown} timestamp @param {number} otherwise  Milliseconds since 1970. */
export function timeOf (timestamp, otherwise) {
  const time = new Date(typeof timestamp === 'string' || typeof timestamp === 'number' ? timestamp : NaN).getTime()
  return Number.isNaN(time) ? otherwise : time
}

/**
 * @param {import('./jam.js').Payload | null} payload
 * @param {string} text  The payload as it came.
 * @returns {Seen}
 */
export function contentOf (payload, text) {
  if (!payload || payload.content === undefined) return { kind: 'other', content: text }
  return pictureOf(payload.content, text)
}

/** @param {unknown} value @param {string} otherwise  For what is nested too deeply to be written. */
function jsonOf (value, otherwise) {
  try {
    return JSON.stringify(value) ?? otherwise
  } catch {
    return otherwise
  }
}

/** How pictures begin; null is any byte. @type {[string, (number | null)[]][]} */
const BEGINNINGS = [
  ['image/jpeg', [0xFF, 0xD8, 0xFF]],
  ['image/png', [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A]],
  ['image/gif', [0x47, 0x49, 0x46, 0x38]],
  ['image/webp', [0x52, 0x49, 0x46, 0x46, null, null, null, null, 0x57, 0x45, 0x42, 0x50]]
]

/** Content as it goes out, to what is stored. @param {unknown} content @param {string} [otherwise]  For what is nested too deeply. @returns {Seen} */
export function pictureOf (content, otherwise = '') {
  if (typeof content === 'string') return { kind: 'text', content }
  if (Array.isArray(content)) {
    const found = BEGINNINGS.find(([, beginning]) => beginning.every((byte, at) => byte === null ? at < content.length : content[at] === byte))
    if (found && content.every((byte) => Number.isInteger(byte) && byte >= 0 && byte <= 255)) return { kind: 'picture', content: Uint8Array.from(content), mime: found[0] }
  }
  return { kind: 'other', content: jsonOf(content, otherwise) }
}

/** A page's content to JSON: bytes become an array of their values, which deployed apps know. @param {unknown} content */
export async function wireContent (content) {
  if (content instanceof Blob) content = new Uint8Array(await content.arrayBuffer())
  return content instanceof Uint8Array ? Array.from(content) : content
}

/** A fingerprint of a payload that has no id: 64 bits of FNV-1a and its length. @param {Uint8Array} bytes */
export function fingerprint (bytes) {
  let [low, high] = [0x811C9DC5, 0xCBF29CE4]
  for (const byte of bytes) {
    low = Math.imul(low ^ byte, 0x01000193)
    high = Math.imul(high ^ byte, 0x01000197)
  }
  return `${low >>> 0}-${high >>> 0}-${bytes.length}`
}
