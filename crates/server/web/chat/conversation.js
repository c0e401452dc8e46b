// The open conversation: what was said, day by day, and where one writes. Its place stays where the reader has it: at the end
// while they are there, else at the line that they look at.

import { Component, html } from '../vendor/preact.js'
import { Composer } from './composer.js'
import * as icons from './icons.js'
import { Message } from './message.js'
import { Avatar } from './people.js'
import { Viewer } from './viewer.js'
import { dayLine, dayOf, shownTime } from './words.js'

/** So near to the end counts as there. */
const NEAR_PX = 60

/** So near to the first or last message that is drawn, those beyond it are fetched. */
const SOON_PX = 600

/** A scroll that a key has begun goes on for so long at most. */
const SCROLL_MS = 400

/** After so long somebody begins anew. */
const PAUSE_MS = 5 * 60_000

export const Nothing = ({ chat }) => html`
  <section class="conversation none" aria-label="Conversation">
    ${icons.talk()}
    <p>${chat.people.length > 0 ? 'Choose somebody to write to.' : 'Here you will read what your friends write.'}</p>
  </section>`

/** The messages with the lines between them. Clocks may be wrong: days only go forward. */
function rows (open) {
  const all = []
  let [day, latest, isMarked] = ['', 0, false]
  /** @type {import('../jam.js').Message | undefined} */ let before
  for (const message of open.messages) {
    latest = Math.max(latest, shownTime(message))
    let isFirst = !before || before.own !== message.own || message.arrived - before.arrived > PAUSE_MS
    if (dayOf(latest) !== day) {
      day = dayOf(latest)
      isFirst = true
      all.push({ key: `day ${day}`, day: latest })
    }
    if (open.mark !== null && !isMarked && !message.own && message.order > open.mark) {
      isMarked = isFirst = true
      all.push({ key: 'new', isNew: true })
    }
    all.push({ key: message.order, message, isFirst })
    before = message
  }
  return all
}

function Beginning ({ open, chat, name }) {
  if (open.hasEarlier) return html`<li class="begins"><button type="button" class="button quiet" onClick=${() => chat.earlier()}>Earlier messages</button></li>`
  return html`<li class="begins">${open.messages.length > 0 ? 'The conversation begins here.' : html`Nothing written yet. Say hello to <bdi>${name}</bdi>.`}</li>`
}

const presence = ({ blocked, online, isFormer }) => {
  if (isFormer) return 'not your friend'
  if (blocked) return 'blocked'
  return online ? 'online' : 'offline'
}

export class Conversation extends Component {
  scroll = /** @type {{ current: Element }} */ ({})
  list = /** @type {{ current: Element }} */ ({})
  state = { viewed: null }
  lastOrder = -1
  isAtEnd = true
  isHeld = false
  isPlaced = false

  componentDidMount () {
    this.resized = new ResizeObserver(() => { if (this.isAtEnd) this.toEnd() })
    this.resized.observe(this.scroll.current)
    this.resized.observe(this.list.current)
    this.#place()
  }

  componentWillUnmount () {
    this.resized?.disconnect()
  }

  /** The first message in view, and where it is. What stands around it may go elsewhere. */
  getSnapshotBeforeUpdate () {
    if (this.isAtEnd) return null
    const { top } = this.scroll.current.getBoundingClientRect()
    const line = Array.from(this.list.current.querySelectorAll('.message')).find((message) => message.getBoundingClientRect().bottom > top)
    return line && { line, top: line.getBoundingClientRect().top }
  }

  componentDidUpdate (_before, _state, anchor) {
    if (!this.isPlaced) return this.#place()
    const { messages } = this.props.open
    const last = messages.at(-1)
    const isMine = last?.own && last.order > this.lastOrder
    this.lastOrder = Math.max(this.lastOrder, last?.order ?? -1)
    if (this.isAtEnd || isMine) this.toEnd()
    else if (anchor?.line.isConnected) this.scroll.current.scrollTop += anchor.line.getBoundingClientRect().top - anchor.top
  }

  /** Where reading begins: at what is new, else at the end. */
  #place () {
    const { open } = this.props
    if (!open.isLoaded) return
    this.isPlaced = true
    this.lastOrder = open.messages.at(-1)?.order ?? -1
    const marker = this.list.current.querySelector('.new')
    if (!marker) return this.toEnd()
    this.isAtEnd = false
    const scroll = this.scroll.current
    scroll.scrollTop += marker.getBoundingClientRect().top - scroll.getBoundingClientRect().top - scroll.clientHeight / 4
    this.#scrolled()
  }

  toEnd () {
    if (this.props.open.hasLater) return this.#newest()
    const scroll = this.scroll.current
    scroll.scrollTop = scroll.scrollHeight
    this.isAtEnd = true
    this.props.chat.reach(true)
  }

  /** For who asks for it: a scroll that is under way does not carry it off again. */
  #jump () {
    this.isHeld = true
    setTimeout(() => { this.isHeld = false }, SCROLL_MS)
    this.toEnd()
  }

  #scrolled () {
    if (!this.isPlaced || !this.scroll.current) return // the event may come when the conversation has just gone
    const { scrollTop, scrollHeight, clientHeight } = this.scroll.current
    const { chat, open } = this.props
    const below = scrollHeight - scrollTop - clientHeight
    if (this.isHeld && below >= NEAR_PX && !open.hasLater) return this.toEnd()
    this.isAtEnd = below < NEAR_PX && !open.hasLater
    chat.reach(this.isAtEnd)
    if (scrollTop < SOON_PX) chat.earlier()
    else if (below < SOON_PX) chat.later()
  }

  /** The end is not drawn: it is, once it is here. */
  async #newest () {
    const { chat, open, page } = this.props
    await chat.newest()
    this.isAtEnd = !open.hasLater
    page.draw()
  }

  render ({ page, chat, open }, { viewed }) {
    const friend = chat.person(open.friend)
    const { name } = friend
    const view = (picture) => this.setState({ viewed: picture })
    return html`
      <section class="conversation" aria-label=${`Conversation with ${name}`}>
        <header class="bar">
          <button type="button" class="icon back" aria-label="Back to the list" onClick=${() => page.back()}><span class="directed">${icons.back()}</span></button>
          <${Avatar} ...${friend} />
          <div class="grow"><h2 tabindex="-1"><bdi>${name}</bdi></h2><p class=${friend.online ? 'online' : undefined}>${presence(friend)}</p></div>
        </header>
        <div class="scroll" ref=${this.scroll} tabindex="0" role="region" aria-label="Messages" onScroll=${() => this.#scrolled()}>
          <ol class="messages" ref=${this.list} role="list" aria-label=${`Messages with ${name}`}>
            ${open.failure && html`<li class="begins">The messages cannot be read at the moment. <button type="button" class="button quiet" onClick=${() => chat.newest()}>Try again</button></li>`}
            ${open.isLoaded && html`<${Beginning} open=${open} chat=${chat} name=${name} />`}
            ${rows(open).map((row) => row.message
              ? html`<${Message} key=${row.key} message=${row.message} isFirst=${row.isFirst} name=${name} chat=${chat} view=${view} />`
              : row.isNew
                ? html`<li key=${row.key} class="new">New messages</li>`
                : html`<li key=${row.key} class="day"><span>${dayLine(row.day)}</span></li>`)}
            ${open.hasLater && html`<li key="later" class="begins"><button type="button" class="button quiet" onClick=${() => chat.later()}>Later messages</button></li>`}
          </ol>
        </div>
        <${Composer} key=${open.friend} chat=${chat} friend=${friend} name=${name}>
          ${open.isAbove && html`<button type="button" class="jump" onClick=${() => this.#jump()}>
            ${icons.down()} ${open.missed > 0 ? `${open.missed} new` : html`<span class="unseen">Jump to the newest</span>`}
          </button>`}
        <//>
        ${viewed && html`<${Viewer} picture=${viewed} close=${() => view(null)} />`}
      </section>`
  }
}
