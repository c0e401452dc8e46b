// The page as a whole: the door, or the conversations of who is inside. It decides when to draw, what the address says, and
// where the focus goes.

import { html, render } from '../vendor/preact.js'
import { Banner } from './banner.js'
import { Conversation, Nothing } from './conversation.js'
import { Door } from './door.js'
import { People } from './people.js'
import { current, forget, forgetDrafts, remember, takeFragment } from './session.js'
import { Chat } from './state.js'
import { refusedLogin } from './words.js'

/** A thousand messages at once are not drawn one by one. */
const DRAW_MS = 50

const wide = matchMedia('(width >= 40rem)')

export class Page {
  chat = null
  /** Of somebody at the door whose login has not been answered. */
  knocks = null
  wrong = null
  /** Who has just left, and whose conversations are still here. */
  left = null
  user = ''
  #root
  #drawn = 0
  #timer

  constructor (root) {
    this.#root = root
  }

  begin () {
    addEventListener('popstate', () => this.#addressed())
    addEventListener('focus', () => this.#looks())
    for (const type of ['online', 'offline']) addEventListener(type, () => this.draw())
    document.addEventListener('visibilitychange', () => this.#looks())
    wide.addEventListener('change', () => this.draw())
    const login = current()
    if (login) this.enter(login)
    this.draw()
  }

  /** Shows the conversations at once, connected or not. */
  async enter (login) {
    await this.#leave()
    this.left = this.wrong = null
    const chat = this.#chatOf(login)
    this.chat = chat
    this.draw()
    try {
      await chat.start()
    } catch ({ message }) { chat.trouble = { category: 'page', message } }
    this.#settle(chat)
    this.draw()
  }

  /** Logs in, and stays at the door until the server has agreed. */
  async knock (login, stays) {
    this.wrong = this.left = null
    this.user = login.user
    const chat = this.#chatOf(login)
    this.knocks = chat
    this.draw()
    const state = await new Promise((resolve) => {
      chat.jam.on('state', ({ detail }) => {
        if (['connected', 'refused', 'failed'].includes(detail.state)) resolve(detail.state)
      })
      chat.start().catch(({ message }) => {
        this.wrong = `This browser does not let the chat begin: ${message}`
        this.knocks = null
        this.draw()
        resolve('failed')
      })
    })
    if (this.knocks !== chat || state !== 'connected') return
    this.knocks = null
    remember(login, { stays })
    this.chat = chat
    this.draw()
    this.#settle(chat)
  }

  #chatOf (login) {
    const chat = new Chat(login, () => this.#changed(chat))
    return chat
  }

  #changed (chat) {
    const { state } = chat.state
    const isOut = (state === 'refused' && chat === this.chat) || (['refused', 'failed'].includes(state) && chat === this.knocks)
    if (isOut) this.#refused(chat)
    else if (chat.isEnded && chat === this.chat) this.chat = null
    else if (chat === this.chat) this.#settle(chat)
    this.draw()
  }

  async #refused (chat) {
    this.wrong = refusedLogin(chat.state.reason ?? {})
    this.user = chat.user
    this.chat = this.knocks = null
    forget(chat)
    await chat.jam.stop()
  }

  /** On a wide window there is always something to write to. */
  #settle (chat) {
    if (chat !== this.chat || chat.open || !chat.isReady) return
    const asked = this.#asked()
    const people = chat.people
    const first = people.find(({ user }) => user === asked) ?? (wide.matches ? people[0] : undefined)
    if (first) chat.choose(first.user)
  }

  async #leave () {
    const chat = this.chat ?? this.knocks
    this.chat = this.knocks = null
    await chat?.jam.stop()
    return chat
  }

  async logOut () {
    const chat = await this.#leave()
    forget(chat)
    forgetDrafts(chat.user)
    this.left = chat
    this.user = ''
    history.replaceState(null, '', location.pathname + location.search)
    this.draw()
  }

  /** Nothing of who has left stays in this browser. */
  async wipe () {
    const { left } = this
    this.left = null
    this.draw()
    await left.jam.start() // or the other tabs would not hear of it
    await left.jam.forget()
  }

  #asked () {
    try {
      return decodeURIComponent(location.hash.match(/^#\/(.+)$/)?.[1] ?? '')
    } catch { return '' }
  }

  #addressed () {
    const login = takeFragment()
    if (login) {
      remember(login)
      this.enter(login)
    } else if (this.chat) {
      const asked = this.#asked()
      this.chat.choose(asked || null)
      if (!asked) this.#settle(this.chat)
    }
  }

  #looks () {
    this.chat?.see()
    this.draw()
  }

  choose (user) {
    const address = `#/${encodeURIComponent(user)}`
    if (wide.matches || this.chat.open) history.replaceState(null, '', address)
    else history.pushState({ fromList: true }, '', address)
    this.chat.choose(user)
    this.#drawNow()
    const isTouched = matchMedia('(pointer: coarse)').matches
    const field = isTouched ? null : this.#root.querySelector('.composer textarea')
    const target = field ?? this.#root.querySelector('.conversation h2')
    target.focus()
  }

  back () {
    const { friend } = this.chat.open
    if (history.state?.fromList) history.back()
    else history.replaceState(null, '', location.pathname + location.search)
    this.chat.choose(null)
    this.#drawNow()
    this.#root.querySelector(`[data-user="${CSS.escape(friend)}"]`)?.focus()
  }

  /** To where one writes, or to those to whom one could. */
  skip (event) {
    event.preventDefault()
    const field = this.#root.querySelector('.composer textarea')
    const target = field?.offsetParent ? field : this.#root.querySelector('.friend')
    target?.focus()
  }

  draw () {
    if (this.#timer) return
    const wait = this.#drawn + DRAW_MS - performance.now()
    this.#timer = setTimeout(() => this.#drawNow(), Math.max(0, wait))
  }

  #drawNow () {
    clearTimeout(this.#timer)
    this.#timer = undefined
    this.#drawn = performance.now()
    render(html`<${View} page=${this} />`, this.#root)
  }
}

function View ({ page }) {
  const { chat } = page
  if (!chat) return html`<${Door} page=${page} />`
  const { open } = chat
  return html`
    <div class="frame">
      <header>
        <a class="skip unseen" href="#/" onClick=${(event) => page.skip(event)}>Skip to writing</a>
        <h1 class="unseen">Chat</h1>
        <${Banner} chat=${chat} />
      </header>
      <main class=${open ? 'columns open' : 'columns'}>
        <${People} page=${page} chat=${chat} />
        ${open ? html`<${Conversation} key=${open.friend} page=${page} chat=${chat} open=${open} />` : html`<${Nothing} chat=${chat} />`}
      </main>
      <div class="unseen" role="log" aria-label="New messages">
        ${chat.lines.map(({ key, name, message }) => html`<p key=${key}>${name}: ${message.kind === 'text' ? message.content.slice(0, 1000) : message.kind === 'picture' ? 'a picture' : 'a message of another kind'}</p>`)}
      </div>
    </div>`
}
