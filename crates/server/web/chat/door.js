// Where one logs in.

import { html, useRef } from '../vendor/preact.js'
import { refusedLogin, shownName } from './words.js'

/** What was refused, and the way back, stand above the fields: in view on the smallest telephone. */
export function Door ({ page }) {
  const form = useRef()
  const { knocks, wrong, left, user } = page
  const waits = knocks?.state.state === 'waiting' ? knocks.state : null
  const submit = (event) => {
    event.preventDefault()
    const said = new FormData(form.current)
    const typed = (name) => `${said.get(name)}`.trim()
    const login = { user: typed('user'), token: typed('token') }
    if (login.user && login.token) page.knock(login, said.has('stay'))
  }
  const turnBack = knocks && html`<button type="button" class="button quiet" onClick=${() => page.turnBack()}>Cancel</button>`
  return html`
    <main class="door">
      <form ref=${form} onSubmit=${submit} aria-label="Log in">
        <img src="icon.svg" alt="" />
        <h1>Log in to chat</h1>
        ${left && html`<div class="told">
          <p role="status">You are logged out. The conversations of <bdi>${shownName('', left.user)}</bdi> are still in this browser.</p>
          <button type="button" class="button quiet" onClick=${() => page.wipe()}>Remove them</button>
        </div>`}
        ${wrong && html`<p class="wrong" role="alert">${wrong}</p>`}
        ${waits && html`<div class="told">
          <p role="status">${waits.reason?.category === 'spam' ? refusedLogin(waits.reason) : 'The server cannot be reached. It is tried again by itself.'}</p>
          ${turnBack}
        </div>`}
        <label class="field">User id
          <input type="text" name="user" required autocomplete="username" autocapitalize="none" spellcheck="false" maxlength="64" dir="auto" defaultValue=${user} disabled=${Boolean(knocks)} />
        </label>
        <label class="field">Token
          <input name="token" type="password" required autocomplete="current-password" disabled=${Boolean(knocks)} />
          <span class="hint">It comes from whoever runs this server.</span>
        </label>
        <label class="check"><input type="checkbox" name="stay" disabled=${Boolean(knocks)} /> Stay logged in on this device</label>
        <button type="submit" class="button" disabled=${Boolean(knocks)}>${knocks ? 'Logging in …' : 'Log in'}</button>
        ${!waits && turnBack}
      </form>
    </main>`
}
