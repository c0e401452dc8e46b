// One message: text with its links, a picture, or what it is; when, how far it has come, and why it went no further.

import { Component, html, useEffect, useState } from '../vendor/preact.js'
import * as icons from './icons.js'
import { sizeOf } from './pictures.js'
import { isJumbo, linked } from './text.js'
import { fullTime, refusal, shortened, shownTime, STATUS, timeOfDay } from './words.js'

/** In a conversation a picture is at most so large, in pixels of the style sheet. */
const WIDEST = 400
const HIGHEST = 360

/** Of a longer text the beginning is shown, and so much more each time that it is asked for. */
const LONG = 3000
const STEP = 250_000

/** The part of a text that is shown, and what shows more of it. */
function useParts (text) {
  const [most, show] = useState(LONG)
  const isRest = text.length <= most + STEP
  const more = text.length > most && html`<button type="button" class="more" onClick=${() => show(most + STEP)}>${isRest ? 'Show all of it' : 'Show more of it'}</button>`
  return [shortened(text, most), more]
}

function Text ({ text }) {
  const [shown, more] = useParts(text)
  return html`<span class=${isJumbo(text) ? 'text jumbo' : 'text'} dir="auto">${linked(shown)}</span>${more}`
}

function Other ({ text }) {
  const [shown, more] = useParts(text)
  return html`<p class="raw-title">A message of a kind that this page does not know:</p>
    <pre class="raw" tabindex="0" dir="ltr">${shown}</pre>${more}`
}

/** A Blob as an address, for as long as it is shown; undefined until it is known to be a picture, null if it is none. */
function useAddress (blob) {
  const [shown, show] = useState(/** @type {{ address: string, width: number, height: number } | null | undefined} */ (undefined))
  useEffect(() => {
    let address = ''
    let isGone = false
    sizeOf(blob).then((size) => {
      if (isGone) return
      if (size) address = URL.createObjectURL(blob)
      show(size ? { address, ...size } : null)
    })
    return () => {
      isGone = true
      if (address) URL.revokeObjectURL(address)
    }
  }, [blob])
  return shown
}

function Picture ({ blob, alt, view }) {
  const shown = useAddress(blob)
  const [isBroken, fail] = useState(false)
  if (isBroken || shown === null) return html`<span class="text">A picture that cannot be shown.</span>`
  if (!shown) return html`<span class="picture pending"></span>`
  const open = (event) => {
    event.preventDefault()
    view({ ...shown, alt })
  }
  const scale = Math.min(1, WIDEST / shown.width, HIGHEST / shown.height)
  return html`<a class="picture" href=${shown.address} target="_blank" rel="noopener noreferrer" onClick=${open}>
    <img src=${shown.address} alt=${alt} width=${Math.ceil(shown.width * scale)} height=${Math.ceil(shown.height * scale)} onError=${() => fail(true)} />
  </a>`
}

function Content ({ message, name, view }) {
  const { kind, content, own } = message
  if (kind === 'text') return html`<${Text} text=${content} />`
  if (kind === 'picture') return html`<${Picture} blob=${content} alt=${own ? 'Picture from you' : `Picture from ${name}`} view=${view} />`
  return html`<${Other} text=${content} />`
}

/** @returns {HTMLElement | null} */
const writing = () => document.querySelector('.composer textarea')

/** Why it is not sent, or not yet. Only what has just been refused is called out; what was refused before is read in its place. */
function Refusal ({ message, name, chat }) {
  const { id, state, reason, isFresh } = message
  if (!reason || !['failed', 'queued'].includes(state)) return null
  if (state === 'queued' && ['network', 'server', 'stopped'].includes(reason.category)) return null
  const isFinal = state === 'failed'
  const act = (done) => {
    done(id)
    writing()?.focus() // these buttons go
  }
  return html`<div class="refusal">
    <p role=${isFinal && isFresh ? 'alert' : undefined}>${isFinal ? 'Not sent.' : 'Not sent yet.'} ${refusal(reason, html`<bdi>${name}</bdi>`)}${isFinal ? '' : ' It is tried again by itself.'}</p>
    <button type="button" class="button quiet" onClick=${() => act((of) => chat.retry(of))}>${isFinal ? 'Retry' : 'Try now'}</button>
    <button type="button" class="button quiet" onClick=${() => act((of) => chat.cancel(of))}>Delete</button>
  </div>`
}

/** Drawn again only when the message is another one. */
export class Message extends Component {
  shouldComponentUpdate ({ message, isFirst, name }) {
    return message !== this.props.message || isFirst !== this.props.isFirst || name !== this.props.name
  }

  render ({ message, isFirst, name, chat, view }) {
    const { own, state, isFresh } = message
    const time = shownTime(message)
    const classes = ['message', own ? 'mine' : 'theirs', state, isFirst && 'first', isFresh && 'arrives'].filter(Boolean).join(' ')
    return html`
      <li class=${classes} data-order=${message.order}>
        <div class="bubble">
          <span class="unseen">${own ? 'You' : html`<bdi>${name}</bdi>`}: </span>
          <${Content} message=${message} name=${name} view=${view} />
          <span class="meta">
            <time dateTime=${new Date(time).toISOString()} title=${fullTime(time)}>${timeOfDay(time)}</time>
            ${own && html`${icons.tick(state)}<span class="unseen">${STATUS[state]}</span>`}
          </span>
        </div>
        ${own && html`<${Refusal} message=${message} name=${name} chat=${chat} />`}
      </li>`
  }
}
