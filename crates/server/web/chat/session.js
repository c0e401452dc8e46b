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

/** Takes the login of this tab out of the browser. One that stays, of another user or with another token, is another tab's. */
export function forget ({ user, token }) {
  for (const store of [reach('sessionStorage'), reach('localStorage')]) {
    const kept = read(store)
    if (kept?.user === user && kept?.token === token) store.removeItem(KEY)
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
  forgetKeys('sessionStorage', draftKey(user, ''))
  forgetKeys('localStorage', sendingKey(user, ''))
}

const forgetKeys = (store, beginning) => {
  try {
    for (const key of keysOf(store, beginning)) reach(store).removeItem(key)
  } catch { /* there are none */ }
}

const keysOf = (store, beginning) => Object.keys(reach(store) ?? {}).filter((key) => key.startsWith(beginning))

// What is on its way into IndexedDB, which takes a moment: who reloads the page in it, or closes it, has sent it all the same.

const sendingKey = (user, id) => `${user}/sending/${id}`

let sent = 0

/** @param {string} user @param {{ id: string, friend: string, text: string }} message */
export const noteSending = (user, { id, friend, text }) => {
  try { localStorage.setItem(sendingKey(user, id), JSON.stringify({ id, friend, text, at: Date.now(), order: sent++ })) } catch { /* then it is lost with the page */ }
}

export const forgetSending = (user, id) => forgetKeys('localStorage', sendingKey(user, id))

/** Messages of which it is not known whether they were stored, the oldest first. */
export const readSending = (user) => {
  try {
    const found = keysOf('localStorage', sendingKey(user, '')).map((key) => JSON.parse(localStorage.getItem(key) ?? ''))
    return found.sort((one, other) => one.at - other.at || one.order - other.order)
  } catch { return [] }
}

/** `crypto.randomUUID` is missing on insecure origins. */
export const uuid = () => '10000000-1000-4000-8000-100000000000'.replace(/[018]/g, (digit) =>
  (Number(digit) ^ crypto.getRandomValues(new Uint8Array(1))[0] & 15 >> Number(digit) / 4).toString(16))
