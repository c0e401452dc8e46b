// What people read: times, names, and reasons in plain words.

const locale = undefined // the browser's
const clock = new Intl.DateTimeFormat(locale, { timeStyle: 'short' })
const weekday = new Intl.DateTimeFormat(locale, { weekday: 'long' })
const shortDate = new Intl.DateTimeFormat(locale, { dateStyle: 'short' })
const longDate = new Intl.DateTimeFormat(locale, { weekday: 'long', day: 'numeric', month: 'long' })
const fullDate = new Intl.DateTimeFormat(locale, { dateStyle: 'long' })
const exactly = new Intl.DateTimeFormat(locale, { dateStyle: 'full', timeStyle: 'short' })

export const dayOf = (time) => new Date(time).toDateString()

const daysAgo = (time) => Math.round((Date.parse(dayOf(Date.now())) - Date.parse(dayOf(time))) / 86_400_000)

export const timeOfDay = (time) => clock.format(time)
export const fullTime = (time) => exactly.format(time)

/** Above the messages of a day. */
export function dayLine (time) {
  const days = daysAgo(time)
  if (days === 0) return 'Today'
  if (days === 1) return 'Yesterday'
  if (days > 1 && days < 7) return weekday.format(time)
  return new Date(time).getFullYear() === new Date().getFullYear() ? longDate.format(time) : fullDate.format(time)
}

/** Beside a conversation: short. */
export function lately (time) {
  const days = daysAgo(time)
  if (days <= 0) return timeOfDay(time)
  if (days === 1) return 'Yesterday'
  return days < 7 ? weekday.format(time) : shortDate.format(time)
}

const SKEW_MS = 5 * 60_000
const LONGEST_WAY_MS = 60 * 86_400_000

/** When a message was written, if the sender's clock can be believed; else when it arrived. */
export const shownTime = ({ timestamp, arrived, own }) =>
  own || (timestamp <= arrived + SKEW_MS && timestamp >= arrived - LONGEST_WAY_MS) ? timestamp : arrived

export const shortened = (text, most) => text.length > most ? `${Array.from(text.slice(0, most)).slice(0, -1).join('')}…` : text

/** Of a name, so much is looked at, and so much shown. */
const NAME_READ = 1000
const NAME = 100

/** More marks on one letter than any script has. */
const PILED = /(\p{M}{4})\p{M}+/gu
const BREAKS = /[\p{Cc}\p{Z}\u2800]+/gu

/** Nothing is seen of them, but that what follows stands elsewhere; joiners and selectors are parts of letters and signs. */
const UNSEEN = /(?!\u200C|\u200D|\uFE0E|\uFE0F)[\p{Default_Ignorable_Code_Point}\p{Cs}\uFFF9-\uFFFB]/gu
const SEEN = /[\p{L}\p{N}\p{P}\p{S}]/u

/** A name as the accounts' database has it: one line, in which every sign is one that is seen, and turns nothing around. */
const cleaned = (text) => {
  const clean = text.slice(0, NAME_READ).replace(BREAKS, ' ').replace(UNSEEN, '').replace(PILED, '$1').trim()
  return SEEN.test(clean) ? shortened(clean, NAME) : ''
}

/** What somebody is called: by their name, or else by their user id. */
export const shownName = (name, user) => cleaned(name) || cleaned(user) || '?'

export const initials = (name) => {
  const words = name.trim().split(/\s+/).filter(Boolean)
  const first = (word) => Array.from(word ?? '')[0] ?? ''
  return (first(words[0]) + (words.length > 1 ? first(words.at(-1)) : '')).toUpperCase() || '?'
}

/** One of eight colours, always the same for a user. */
export const hueOf = (user) => {
  let sum = 0
  for (const char of user) sum = (sum * 31 + char.codePointAt(0)) % 997
  return `hue-${sum % 8}`
}

/** Why a message was not taken, in pieces; `name` is one of them, to be set apart from the sentence by who shows it. */
export function refusal ({ category, message }, name) {
  if (message === 'fatal database error') return ['The server cannot look up your friends at the moment.']
  switch (category) {
    case 'friends': return ['You and ', name, ' are not friends, or one of you has blocked the other.']
    case 'quota': return ['The inbox of ', name, ' is full.']
    case 'mailbox': return ['The server cannot keep messages at the moment.']
    case 'rate': return ['You are sending too fast.']
    case 'payload': return ['The server does not take a message like this.']
    case 'properties':
    case 'topic': return ['The server does not take this message.']
    case 'size': return ['The message is too large.']
    default: return [message ? `The server refused it: ${message}.` : 'The server refused it.']
  }
}

/** MQTT's code; also what ends a connection when the token is changed. */
const NOT_AUTHORIZED = 0x87

/** Why nobody was let in. @param {{ category?: string, message?: string, code?: number | null }} reason */
export function refusedLogin ({ category, message, code } = {}) {
  if (category === 'spam') return 'Too many failed logins from here. It is tried again by itself in ten minutes.'
  if (message === 'unknown user id') return 'The server knows no user with this id.'
  if (category === 'api_token' || code === NOT_AUTHORIZED) return 'The token is not the one of this user, or is no longer valid.'
  if (category === 'id') return 'This is not a user id.'
  return message ? `The server did not let you in: ${message}.` : 'The server did not let you in with this user id and token.'
}

/** Why nobody was let in, though this browser is connected as this user. */
export const ANOTHER_TOKEN = 'The token is not the one of this user: another tab of this browser is connected with another one.'

export const STATUS = { queued: 'waiting to be sent', sent: 'sent', delivered: 'delivered', failed: 'not sent' }

/** What this browser cannot do, and what to do about it. `category`: jam.js's, or what the page has tried. */
export function trouble ({ category, message }) {
  switch (category) {
    case 'store': return 'This browser cannot keep a message that has come. The server keeps it: make room in the browser, then load this page again.'
    case 'read': return `This browser cannot read the messages that it has kept (${message}). Load this page again; if that does not help, close other tabs and make room on the disk.`
    case 'mark': return `This browser cannot note what you have read (${message}). Make room on the disk, then load this page again.`
    case 'change': return `This browser cannot change that message (${message}). Make room on the disk, then try again.`
    case 'remove': return `The conversations could not be removed (${message}). Try again; if that does not help, remove this site’s data in the settings of the browser.`
    case 'begin': return `This browser does not let the chat begin (${message}). Load this page again; if that does not help, close other tabs and make room on the disk.`
    default: return message
  }
}
