// Text as people write it: addresses of the web become links, all else stays text.

import { html } from '../vendor/preact.js'

/** Without what is punctuation of the sentence around an address; a bracket that opens in it may close in it. */
const trimmed = (address) => {
  let end = address.length
  for (; end > 0; end--) {
    const last = address[end - 1]
    if (last === ')' && address.slice(0, end).split('(').length > address.slice(0, end - 1).split(')').length) break
    if (!'.,;:!?\'"»”’)]}>*_'.includes(last)) break
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
  for (const match of text.matchAll(/\bhttps?:\/\/[^\s<>"]+/gi)) {
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
