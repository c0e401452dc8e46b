// Who one talks to: the last conversation first, with what was said last.

import { Component, html, useState } from '../vendor/preact.js'
import * as icons from './icons.js'
import { hueOf, initials, lately, shortened, shownName, shownTime, STATUS } from './words.js'

/** From so many on there is a field to search. */
const MANY = 8

export const Avatar = ({ user, name, online }) => html`<span class=${`avatar ${hueOf(user)} ${online ? 'online' : ''}`} aria-hidden="true">${initials(name)}</span>`

function Preview ({ draft, last, blocked }) {
  if (draft.trim()) return html`<span class="preview"><span class="draft">Draft:</span> <bdi>${shortened(draft, 120)}</bdi></span>`
  if (blocked) return html`<span class="preview">You have blocked them</span>`
  if (!last) return html`<span class="preview">Nothing written yet</span>`
  if (!last.own) return html`<span class="preview"><bdi>${last.text}</bdi></span>`
  return html`<span class="preview">${icons.tick(last.state)}<span class="unseen">${STATUS[last.state]}: </span><bdi>${last.text}</bdi></span>`
}

/** Drawn again only when something about them is new. */
class Friend extends Component {
  shouldComponentUpdate ({ friend, isOpen }) {
    const { friend: before, isOpen: was } = this.props
    return isOpen !== was || ['name', 'online', 'blocked', 'conversation', 'draft'].some((part) => friend[part] !== before[part])
  }

  render ({ friend, isOpen, choose }) {
    const { user, name, online, blocked, conversation, draft } = friend
    const { last = null, unread = 0 } = conversation ?? {}
    const classes = ['friend', unread > 0 && 'unread', last?.state === 'failed' && 'refused'].filter(Boolean).join(' ')
    return html`
      <li>
        <button type="button" class=${classes} data-user=${user} aria-current=${isOpen ? 'true' : undefined} onClick=${() => choose(user)}>
          <${Avatar} user=${user} name=${name} online=${online} />
          <span class="name"><bdi>${name}</bdi></span>
          ${last ? html`<time dateTime=${new Date(shownTime(last)).toISOString()}>${lately(shownTime(last))}</time>` : html`<span></span>`}
          ${online && html`<span class="unseen">online</span>`}
          <${Preview} draft=${isOpen ? '' : draft} last=${last} blocked=${blocked} />
          ${unread > 0 && html`<span class="badge">${unread > 999 ? '999+' : unread}<span class="unseen"> unread</span></span>`}
        </button>
      </li>`
  }
}

export function People ({ page, chat }) {
  const [wanted, search] = useState('')
  const { people, open } = chat
  const isMany = people.length > MANY
  const part = wanted.trim().toLocaleLowerCase()
  const found = isMany && part ? people.filter(({ name, user }) => name.toLocaleLowerCase().includes(part) || user === part) : people
  const canAsk = globalThis.Notification?.permission === 'default'
  return html`
    <nav class="people" aria-label="Conversations">
      <header class="bar">
        <div class="grow"><h2>Chats</h2><p>You are user <bdi>${shownName('', chat.user)}</bdi></p></div>
        ${canAsk && html`<button type="button" class="icon" aria-label="Turn on notifications" title="Turn on notifications" onClick=${() => Notification.requestPermission().then(() => page.draw(), () => {})}>${icons.bell()}</button>`}
        <button type="button" class="icon" aria-label="Log out" title="Log out" onClick=${() => page.logOut()}><span class="directed">${icons.leave()}</span></button>
      </header>
      ${isMany && html`<input class="search" type="search" aria-label="Search friends" placeholder="Search friends" onInput=${({ target }) => search(target.value)} />`}
      ${found.length > 0 && html`<ul aria-label="Friends" role="list">
        ${found.map((friend) => html`<${Friend} key=${friend.user} friend=${friend} isOpen=${open?.friend === friend.user} choose=${(user) => page.choose(user)} />`)}
      </ul>`}
      ${found.length === 0 && html`<div class="nobody">${icons.talk()}<p>${people.length > 0 ? 'Nobody is called so.' : chat.isTold ? 'You have no friends here yet. You can add some in the app that your account is from.' : 'Looking for your friends …'}</p></div>`}
    </nav>`
}
