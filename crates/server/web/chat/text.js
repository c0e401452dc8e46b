// Text as people write it: addresses of the web become links, all else stays text.
//
// Invariant: the time that it takes grows with the text and no faster, whatever the text is.

import { html } from '../vendor/preact.js'

/** What is longer is no address that somebody wants to follow. */
const MAX_ADDRESS = 2048

/** More addresses than that are no message to be read; what follows stays text. */
const MAX_ADDRESSES = 500

const ADDRESS = /\bhttps?:\/\/[^\s<>"]+/gi
const AROUND = '.,;:!?\'"»”’)]}>*_'

/** Without what is punctuation of the sentence around an address; a bracket that opens in it may close in it. */
function trimmed (address) {
  let opened = 0
  for (const char of address) opened += char === '(' ? 1 : char === ')' ? -1 : 0
  let end = address.length
  for (; end > 0; end--) {
    const last = address[end - 1]
    if (!AROUND.includes(last) || (last === ')' && opened >= 0)) break
    if (last === ')') opened++
  }
  return address.slice(0, end)
}

const webAddress = (text) => {
  try {
    const url = new URL(text)
    return ['http:', 'https:'].includes(url.protocol) && !url.username && !url.password ? url.href : undefined
  } catch { return undefined }
}

/** The text in pieces: strings, and `{ text, href }`. */
export function pieces (text) {
  const found = []
  let done = 0
  let looked = 0
  for (const match of text.matchAll(ADDRESS)) {
    if (looked++ === MAX_ADDRESSES) break
    if (match[0].length > MAX_ADDRESS) continue
    const address = trimmed(match[0])
    const href = webAddress(address)
    if (!href) continue
    if (match.index > done) found.push(text.slice(done, match.index))
    found.push({ text: address, href })
    done = match.index + address.length
  }
  if (done < text.length) found.push(text.slice(done))
  return found
}

export const linked = (text) => pieces(text).map((piece) => typeof piece === 'string'
  ? piece
  : html`<a href=${piece.href} target="_blank" rel="noopener noreferrer">${piece.text}</a>`)

const EMOJI_ONLY = /^(?:\p{Extended_Pictographic}(?:\uFE0F|[\u{1F3FB}-\u{1F3FF}])?(?:\u200D\p{Extended_Pictographic}(?:\uFE0F|[\u{1F3FB}-\u{1F3FF}])?)*){1,3}$/u

export const isJumbo = (text) => text.length <= 32 && EMOJI_ONLY.test(text.trim())
