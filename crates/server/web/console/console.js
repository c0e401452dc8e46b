// The shell: who is let in, which page is shown, and what is said when the server does not answer.

import { description, metrics, offers, signals, token } from './api.js'
import { h, replace, seconds } from './dom.js'
import { live } from './live.js'
import { lockouts, mailboxes, pushes } from './lists.js'
import * as numbers from './numbers.js'
import { overview } from './overview.js'
import { reference } from './reference.js'
import { server } from './server.js'
import { user } from './user.js'
import { users } from './users.js'

const retryMs = 2000

// Name in the address, title, the page, and the route of the API that it needs.
const views = [
  ['overview', 'Overview', overview],
  ['users', 'Users', (place, [id], query) => (id === undefined ? users(place, query) : user(place, id, query)), '/users/{id}/devices'],
  ['mailboxes', 'Mailboxes', mailboxes, '/mailboxes'],
  ['live', 'Live', live, '/events'],
  ['pushes', 'Pushes', pushes, '/pushes'],
  ['lockouts', 'Lockouts', lockouts, '/lockouts/{address}'],
  ['server', 'Server', server, '/server'],
  ['api', 'API', reference]
]

const root = document.getElementById('console')
const main = h('main', { id: 'main', tabindex: '-1' })
const banner = h('div', { class: 'banner', role: 'alert', hidden: true })
let leave = null
let lostAt = null
let knocking = null

/** The address as parts and query: `#/users/7?from=2`. */
function where () {
  const [path, query] = location.hash.replace(/^#\/?/, '').split('?')
  const decode = (part) => { try { return decodeURIComponent(part) } catch { return part } }
  const [name, ...parts] = path.split('/').filter(Boolean).map(decode)
  return { name: name ?? 'overview', parts, query: new URLSearchParams(query) }
}

function end () {
  leave?.()
  leave = null
}

function show ({ focus = true } = {}) {
  if (!token.get()) return login()
  end()
  const { name, parts, query } = where()
  const view = views.find(([known]) => known === name)
  const title = view ? (parts[0] ?? view[1]) : 'No such page'
  document.title = `${title} – jam-mqtt console`
  for (const entry of root.querySelectorAll('nav a')) {
    if (entry.dataset.page === name) entry.setAttribute('aria-current', 'page')
    else entry.removeAttribute('aria-current')
  }
  root.querySelector('#menu')?.setAttribute('aria-expanded', 'false')
  const heading = h('h1', { tabindex: '-1' }, view ? (parts[0] === undefined ? view[1] : `${view[1].replace(/s$/, '')} ${parts[0]}`) : 'No such page')
  const place = h('div', { class: `page page-${view?.[0] ?? 'none'}` })
  replace(main, heading, place)
  if (focus) heading.focus({ preventScroll: true })
  window.scrollTo(0, 0)
  if (!view) return replace(place, h('p', { class: 'empty' }, 'The console has no such page. The menu has those that there are.'))
  const [, , render, needs] = view
  if (needs && !offers(needs)) return replace(place, h('p', { class: 'empty' }, `This server has no ${needs} in its API: it is older than this page, or another version.`))
  leave = render(place, parts, query) ?? null
}

function frame () {
  const menu = h('button', { id: 'menu', type: 'button', 'aria-expanded': 'false', 'aria-controls': 'nav', onclick: () => menu.setAttribute('aria-expanded', String(menu.getAttribute('aria-expanded') !== 'true')) }, 'Menu')
  replace(root,
    h('a', { class: 'skip', href: '#main', onclick: (event) => { event.preventDefault(); main.focus() } }, 'Skip to the page'),
    h('header', {},
      h('p', { class: 'brand' }, h('img', { src: 'icon.svg', alt: '', width: 22, height: 22 }), 'jam-mqtt'),
      h('p', { id: 'pulse' }, h('i', { class: 'dot' }), h('span', {}, 'Asking …')),
      menu,
      h('button', { type: 'button', class: 'quiet', onclick: () => logout('You are logged out.') }, 'Log out')),
    h('nav', { id: 'nav', 'aria-label': 'Pages' }, h('ul', {}, views.map(([name, title]) => h('li', {}, h('a', { href: `#/${name}`, 'data-page': name }, title))))),
    h('div', { class: 'body' }, banner, main))
}

function pulse (kind, text) {
  const element = document.getElementById('pulse')
  if (!element || element.textContent === text && element.className === kind) return
  element.className = kind
  element.lastChild.textContent = text
}

function tellPulse () {
  const point = numbers.latest()
  const why = numbers.whyNotReady(point)
  if (lostAt !== null) pulse('bad', 'No answer')
  else if (why?.length) pulse('bad', 'Not ready')
  else pulse('good', why ? 'Ready' : 'Answers')
}

function login (message = '') {
  end()
  numbers.stop()
  stopKnocking()
  document.title = 'Log in – jam-mqtt console'
  const said = h('p', { class: 'failed', role: 'alert', hidden: message === '' }, message)
  const input = h('input', { id: 'token', type: 'password', autocomplete: 'off', required: true, spellcheck: 'false', 'aria-describedby': 'token-help' })
  const button = h('button', { type: 'submit', class: 'primary' }, 'Log in')
  const form = h('form', {
    class: 'card login',
    onsubmit: async (event) => {
      event.preventDefault()
      const typed = input.value.trim()
      if (!/^[\x21-\x7e]+$/.test(typed)) return tell('A token has only printable characters, and no spaces.')
      button.disabled = true
      token.set(typed)
      try {
        await description()
        enter()
      } catch (error) {
        token.forget()
        button.disabled = false
        tell(error.status === 401 ? 'This is not the token of this server.' : error.message)
        input.select()
      }
    }
  },
  h('p', { class: 'brand' }, h('img', { src: 'icon.svg', alt: '', width: 28, height: 28 }), 'jam-mqtt'),
  h('h1', {}, 'Console'),
  said,
  h('p', {}, h('label', { for: 'token' }, 'Admin token'), input),
  h('p', { id: 'token-help', class: 'muted' }, 'It is admin.token of the settings, or the text in the file admin-token of the data directory. With admin.read_token you can look and change nothing. This tab keeps it until you close it.'),
  h('p', { class: 'buttons' }, button))
  const tell = (text) => { said.textContent = text; said.hidden = false }
  replace(root, h('main', { class: 'door' }, form))
  input.focus()
}

function logout (message) {
  token.forget()
  numbers.history.length = 0
  lostAt = null
  login(message)
}

function enter () {
  frame()
  numbers.start(async (signal) => numbers.parse(await metrics(signal)))
  signals.dispatchEvent(new CustomEvent('answered'))
  tellPulse()
  show()
}

async function begin () {
  if (!token.get()) return login()
  try {
    await description()
    enter()
  } catch (error) {
    if (error.status === 401) return logout('The token is not valid any more.')
    frame()
    replace(main, h('h1', {}, 'No answer'), h('p', { class: 'empty' }, 'The page comes as soon as the server answers.'))
    tellLost(error.message)
  }
}

// Without an answer: say so, knock every two seconds, and show the page anew when the server is back.

function stopKnocking () {
  clearTimeout(knocking)
  knocking = null
  banner.hidden = true
}

function tellLost (why) {
  if (!token.get() || !document.getElementById('nav')) return
  lostAt ??= Date.now()
  const gone = Math.round((Date.now() - lostAt) / 1000)
  replace(banner, h('p', {}, h('b', {}, why), ` Trying again every ${retryMs / 1000} seconds. What you see is ${gone < 2 ? 'from a moment ago' : `${seconds(gone)} old`}.`))
  banner.hidden = false
  tellPulse()
  knocking ??= setTimeout(async () => {
    knocking = null
    try {
      await description({ anew: true })
    } catch (error) {
      if (error.status !== 401) tellLost(error.message)
    }
  }, retryMs)
}

signals.addEventListener('lost', ({ detail }) => tellLost(detail))
signals.addEventListener('answered', () => {
  if (lostAt !== null) {
    lostAt = null
    stopKnocking()
    // What failed is shown anew; what somebody is writing stays.
    if (main.querySelector('.failed') || !main.querySelector('.page')) begin()
  }
  tellPulse()
})
signals.addEventListener('unauthorized', () => { if (document.getElementById('nav')) logout('The token is not valid any more.') })
numbers.changes.addEventListener('point', tellPulse)
window.addEventListener('hashchange', () => { if (document.getElementById('nav')) show() })
begin()
