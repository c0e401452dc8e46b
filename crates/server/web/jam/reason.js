// Why something was refused, or did not work: in the server's words (PROTOCOL.md, section 2), or in own ones.

import { parse } from './content.js'

/** @typedef {import('./jam.js').Reason} Reason */

/** @param {string} category @param {string} message @param {number | null} [code] @returns {Reason} */
export const ownReason = (category, message, code = null) => ({ handler: null, category, message, code })

/** The server's JSON. @param {{ [key: string]: unknown }} error @param {number | null} [code] @returns {Reason} */
export const refusal = ({ handler, category, message }, code = null) =>
  ({ handler: plain(handler) || null, category: plain(category), message: plain(message), code })

/** @param {unknown} value */
const plain = (value) => typeof value === 'string' ? value : ''

/**
 * Of a connection's end. The server's JSON is in the Reason String, if it was the server (PROTOCOL.md, section 3).
 *
 * @param {import('./connection.js').End} end
 * @returns {Reason}
 */
export function reasonOf ({ how, code, message }) {
  const payload = parse(message)
  if (payload && typeof payload.category === 'string') return refusal(payload, code)
  return ownReason(how === 'lost' ? 'network' : how === 'malformed' ? 'protocol' : 'server', message, code)
}
