// Where one writes: Enter sends, Shift+Enter begins a line, and what an input method composes is left to it.

import { html, useEffect, useLayoutEffect, useRef, useState } from '../vendor/preact.js'
import * as icons from './icons.js'
import { reencoded } from './pictures.js'

const EMOJI = '😀 😂 😊 😍 🥰 😘 😎 🤔 😴 😢 😭 😡 👍 👎 👋 🙏 👏 💪 🎉 🎂 🌹 🔥 ⭐ ✅ ❤️ 💙 ☕ 🍕 🍺 🏠 🚗 ✈️'.split(' ')

function Emoji ({ choose, close }) {
  const grid = useRef()
  useLayoutEffect(() => grid.current.querySelector('button').focus(), []) // before the next key
  const key = (event) => {
    const buttons = Array.from(grid.current.children)
    const columns = buttons.filter(({ offsetTop }) => offsetTop === buttons[0].offsetTop).length
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: columns, ArrowUp: -columns }[event.key]
    if (event.key === 'Escape') close()
    else if (step) buttons[buttons.indexOf(document.activeElement) + step]?.focus()
    else return
    event.preventDefault()
  }
  return html`<div class="emoji" ref=${grid} role="group" aria-label="Emoji" onKeyDown=${key}>
    ${EMOJI.map((emoji) => html`<button type="button" onClick=${() => choose(emoji)}>${emoji}</button>`)}
  </div>`
}

/** The picture that goes with the next message; shown until then. */
function Attached ({ picture, remove }) {
  const [address, show] = useState(/** @type {string | null} */ (null))
  useEffect(() => {
    const made = URL.createObjectURL(picture)
    show(made)
    return () => URL.revokeObjectURL(made)
  }, [picture])
  return html`<div class="attached">
    ${address && html`<img src=${address} alt="The picture that you are about to send" />`}
    <p>${Math.ceil(picture.size / 1000)} KB</p>
    <button type="button" class="icon" aria-label="Remove the picture" onClick=${remove}>${icons.close()}</button>
  </div>`
}

const pictureIn = (transfer) => Array.from(transfer?.files ?? []).find(({ type }) => type.startsWith('image/'))

export function Composer ({ chat, friend, name, children }) {
  const [text, write] = useState(chat.draft(friend.user))
  const [picture, attach] = useState(/** @type {Blob | null} */ (null))
  const [isChoosing, choose] = useState(false)
  const [wrong, fail] = useState(/** @type {string | null} */ (null))
  const area = useRef()
  const file = useRef()

  const fit = () => {
    const { style } = area.current ?? {}
    if (!style) return
    style.height = 'auto'
    style.height = `${area.current.scrollHeight + 2}px`
  }
  useLayoutEffect(fit, [text])
  useEffect(() => {
    addEventListener('resize', fit)
    return () => removeEventListener('resize', fit)
  }, [])

  const change = (now) => {
    write(now)
    chat.setDraft(friend.user, now)
  }

  const take = async (chosen) => {
    if (!chosen) return
    fail(null)
    try {
      attach(await reencoded(chosen))
      area.current?.focus()
    } catch { fail('This file is no picture that can be sent.') }
  }

  const send = async () => {
    if (!text.trim() && !picture) return
    change('')
    attach(null)
    choose(false)
    fail(null)
    area.current.focus() // the button has nothing to send any more
    // Both are queued before either is waited for, and to the friend they were written to: another may be open by then.
    const queue = async (content) => {
      try {
        if (content) await chat.send(friend.user, content)
      } catch (error) { return error }
    }
    const [ofPicture, ofText] = await Promise.all([queue(picture), queue(text.trimEnd())])
    if (ofText && !chat.draft(friend.user)) change(text)
    if (ofPicture) attach(picture)
    const error = ofPicture ?? ofText
    if (error) fail(`This browser cannot keep the message (${error.message}). Make room on the disk, then send it again.`)
  }

  const key = (event) => {
    const isComposing = event.isComposing || event.keyCode === 229
    if (event.key === 'Escape') choose(false)
    if (event.key !== 'Enter' || event.shiftKey || isComposing) return
    event.preventDefault()
    send()
  }

  const insert = (emoji) => {
    const { selectionStart: from, selectionEnd: to } = area.current
    change(text.slice(0, from) + emoji + text.slice(to))
    choose(false)
    area.current.focus()
    setTimeout(() => area.current?.setSelectionRange(from + emoji.length, from + emoji.length))
  }

  const paste = (event) => {
    const chosen = pictureIn(event.clipboardData)
    if (!chosen) return
    event.preventDefault()
    take(chosen)
  }

  const closed = friend.isFormer
    ? html`You can read what you have written to each other. You cannot write: <bdi>${name}</bdi> is no longer among your friends.`
    : friend.blocked && html`You have blocked <bdi>${name}</bdi>. You can change that in the app that your account is from.`
  if (closed) return html`<div class="composer">${children}<p class="note">${closed}</p></div>`
  return html`
    <div class="composer" onPaste=${paste} onDragOver=${(event) => event.preventDefault()} onDrop=${(event) => { event.preventDefault(); take(pictureIn(event.dataTransfer)) }}>
      ${children}
      ${wrong && html`<p class="wrong" role="alert">${wrong}</p>`}
      ${picture && html`<${Attached} picture=${picture} remove=${() => { attach(null); area.current.focus() }} />`}
      ${isChoosing && html`<${Emoji} choose=${insert} close=${() => { choose(false); area.current.focus() }} />`}
      <form onSubmit=${(event) => { event.preventDefault(); send() }}>
        <button type="button" class="icon" aria-label="Emoji" title="Emoji" aria-expanded=${isChoosing} onClick=${() => choose(!isChoosing)}>${icons.smile()}</button>
        <button type="button" class="icon" aria-label="Attach a picture" title="Attach a picture" onClick=${() => file.current.click()}>${icons.picture()}</button>
        <input ref=${file} type="file" accept="image/*" hidden aria-label="Picture" onChange=${({ target }) => { take(target.files[0]); target.value = '' }} />
        <textarea ref=${area} rows="1" dir="auto" enterkeyhint="send" autocomplete="off" aria-label=${`Message to ${name}`} placeholder="Message" value=${text}
          onInput=${({ target }) => change(target.value)} onKeyDown=${key}></textarea>
        <button type="submit" class="icon send" aria-label="Send" title="Send" disabled=${!text.trim() && !picture}><span class="directed">${icons.send()}</span></button>
      </form>
    </div>`
}
