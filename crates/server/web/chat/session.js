// Who is logged in here: out of the address, of this tab, or of this browser. The address never keeps a token.

const KEY = 'login'

/** A store of the browser that may be denied. */
const reach = (name) => {
  try { return globalThis[name] } catch { return undefined }
}

const read = (store) => {
  try {
    const { user, token } = JSON.parse(store.getItem(KEY))
    return typeof user === 'string' && typeof token === 'string' ? { user, token } : undefined
  } catch { return undefined }
}

const write = (store, login) => {
  try { store.setItem(KEY, JSON.stringify(login)) } catch { /* then it holds until the page is left */ }
}

/** What `#user=…&token=…` says. It is taken out of the address at once, and is in no entry of the tab's history. */
export function takeFragment () {
  const said = new URLSearchParams(location.hash.slice(1))
  if (!said.has('token')) return undefined
  history.replaceState(null, '', location.pathname + location.search)
  const [user, token] = [said.get('user') ?? '', said.get('token')]
  return user && token ? { user, token } : undefined
}

/** A link counts for this tab only, so that two tabs of one browser can be two users. */
export function current () {
  const linked = takeFragment()
  if (linked) remember(linked)
  return linked ?? read(reach('sessionStorage')) ?? read(reach('localStorage'))
}

export function remember (login, { stays = false } = {}) {
  write(reach('sessionStorage'), login)
  if (stays) write(reach('localStorage'), login)
}

/** Takes the login of this tab out of the browser. One that stays, of another user, is another tab's. */
export function forget ({ user }) {
  for (const store of [reach('sessionStorage'), reach('localStorage')]) {
    if (read(store)?.user === user) store.removeItem(KEY)
  }
}

const draftKey = (user, friend) => `${user}/draft/${friend}`

export const readDraft = (user, friend) => {
  try { return sessionStorage.getItem(draftKey(user, friend)) ?? '' } catch { return '' }
}

export const writeDraft = (user, friend, text) => {
  try {
    if (text) sessionStorage.setItem(draftKey(user, friend), text)
    else sessionStorage.removeItem(draftKey(user, friend))
  } catch { /* it is lost with the page */ }
}

export const forgetDrafts = (user) => {
  try {
    for (const key of Object.keys(sessionStorage)) if (key.startsWith(draftKey(user, ''))) sessionStorage.removeItem(key)
  } catch { /* there are none */ }
}
