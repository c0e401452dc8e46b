// Questions before something is done. What destroys has to be confirmed by repeating the id that it is about.

import { h } from './dom.js'

/**
 * Asks, does, and says what came of it. Resolves with the answer of `action`, or `null` if nothing was done.
 * `repeat`: the id to be repeated; without one a click is enough.
 */
export function confirm ({ title, text, action, button, repeat = null }) {
  return new Promise((resolve) => {
    let result = null
    const opener = document.activeElement
    const mistake = h('p', { class: 'failed', role: 'alert', hidden: true })
    const input = repeat !== null && h('input', { id: 'repeat', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false', oninput: () => { submit.disabled = input.value !== repeat } })
    const submit = h('button', { class: repeat === null ? 'primary' : 'danger', type: 'submit', disabled: repeat !== null }, button)
    const form = h('form', {
      method: 'dialog',
      onsubmit: async (event) => {
        event.preventDefault()
        if (input && input.value !== repeat) return
        submit.disabled = true
        try {
          result = await action()
          dialog.close()
        } catch (error) {
          mistake.textContent = error.message
          mistake.hidden = false
          submit.disabled = false
        }
      }
    },
    h('h2', { id: 'dialog-title' }, title),
    text.map((sentence) => h('p', {}, sentence)),
    input && h('p', {}, h('label', { for: 'repeat' }, 'Repeat the id ', h('b', { class: 'id' }, repeat), ' to go on'), input),
    mistake,
    h('p', { class: 'buttons' },
      h('button', { type: 'button', onclick: () => dialog.close() }, 'Cancel'), submit))
    const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' }, form)
    dialog.addEventListener('close', () => {
      dialog.remove()
      if (opener?.isConnected) opener.focus()
      resolve(result)
    })
    document.body.append(dialog)
    dialog.showModal()
    if (input) input.focus()
  })
}

/** Shows a secret once: it is in no page and no history afterwards. */
export function showOnce (title, sentence, secret) {
  return new Promise((resolve) => {
    const said = h('span', { role: 'status', class: 'muted' })
    const dialog = h('dialog', { 'aria-labelledby': 'dialog-title' },
      h('h2', { id: 'dialog-title' }, title),
      h('p', {}, sentence),
      h('p', {}, h('code', { class: 'secret', tabindex: '0' }, secret)),
      h('p', { class: 'buttons' }, said, copyButton(() => secret, said),
        h('button', { class: 'primary', type: 'button', onclick: () => dialog.close() }, 'I have it')))
    dialog.addEventListener('close', () => { dialog.remove(); resolve() })
    document.body.append(dialog)
    dialog.showModal()
  })
}

/** Copies a text, and says so. Without a secure origin there is no clipboard: the text can be marked by hand. */
export const copyButton = (text, said, label = 'Copy') => h('button', {
  type: 'button',
  onclick: async () => {
    try {
      await navigator.clipboard.writeText(text())
      said.textContent = 'Copied.'
    } catch {
      said.textContent = 'The browser does not allow it: mark the text and copy it.'
    }
  }
}, label)
