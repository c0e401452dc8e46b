// What is wrong with the connection, or with what the browser keeps: in words, and what can be done about it.

import { html, useEffect, useState } from '../vendor/preact.js'
import { refusedLogin, trouble } from './words.js'

/** Says in how many seconds it is tried again. A screen reader is told once that it is offline, not every second. */
function Countdown ({ until }) {
  const [now, tick] = useState(Date.now())
  useEffect(() => {
    const timer = setInterval(() => tick(Date.now()), 250)
    return () => clearInterval(timer)
  }, [])
  const seconds = Math.max(0, Math.ceil((until - now) / 1000))
  return html`<span role="timer">${seconds > 0 ? `Trying again in ${seconds} s` : 'Trying again …'}</span>`
}

function OfConnection ({ chat }) {
  const { state: { state, retryAt, reason } } = chat
  const start = () => chat.connect()
  if (state === 'logout') {
    const isElsewhere = reason?.category !== 'takeover'
    return html`<div class="banner">
      <p role="alert">${isElsewhere ? 'You are using the chat on another device now.' : 'The chat is open in another place now.'} New messages arrive there.</p>
      <button type="button" class="button" onClick=${start}>Use here</button>
    </div>`
  }
  if (state === 'failed') {
    return html`<div class="banner">
      <p role="alert">The server ended the connection${reason?.message ? `: ${reason.message}` : ''}.</p>
      <button type="button" class="button quiet" onClick=${start}>Try again</button>
    </div>`
  }
  // A connection over a network that is gone is noticed late; the browser knows at once.
  const hasNetwork = navigator.onLine
  if (chat.isLost || !hasNetwork) {
    return html`<div class="banner">
      <p role="status">${reason?.category === 'spam' ? refusedLogin(reason) : 'You are offline. What you write is kept, and sent later.'}</p>
      ${state === 'waiting' && retryAt ? html`<${Countdown} until=${retryAt} />` : html`<span>${hasNetwork ? 'Connecting …' : 'There is no network.'}</span>`}
      <button type="button" class="button quiet" disabled=${hasNetwork && state !== 'waiting'} onClick=${start}>Try now</button>
    </div>`
  }
  return null
}

function OfBrowser ({ chat }) {
  if (!chat.trouble) return null
  return html`<div class="banner">
    <p role="alert">${trouble(chat.trouble)}</p>
    ${['read', 'begin'].includes(chat.trouble.category) && html`<button type="button" class="button quiet" onClick=${() => location.reload()}>Load again</button>`}
    <button type="button" class="button quiet" onClick=${() => { chat.trouble = null; chat.changed() }}>Close</button>
  </div>`
}

export const Banner = ({ chat }) => html`<${OfConnection} chat=${chat} /><${OfBrowser} chat=${chat} />`
