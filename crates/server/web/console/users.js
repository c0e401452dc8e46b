// All users: those whose ids begin with something, those who are online.

import { get, offers } from './api.js'
import { empty, h, link, number, pages, replace, tag, userLink } from './dom.js'

const pauseMs = 250

const yesNo = (value, no = 'no') => (value === undefined ? '–' : value ? 'yes' : tag(no, 'warn'))

export function users (place, query) {
  const list = h('div', {})
  const prefix = h('input', { id: 'prefix', type: 'search', value: query.get('prefix') ?? '', autocomplete: 'off', autocapitalize: 'off', spellcheck: 'false' })
  const online = h('input', { id: 'online', type: 'checkbox', checked: query.get('online') === 'true' })
  const hasList = offers('/users')
  let abort = null
  let timer = null

  const search = () => {
    const wanted = { prefix: prefix.value.trim(), online: online.checked ? 'true' : '', limit: 100 }
    const kept = new URLSearchParams(Object.entries(wanted).filter(([name, value]) => value && name !== 'limit'))
    history.replaceState(null, '', `#/users${kept.size ? `?${kept}` : ''}`)
    abort?.abort()
    abort = new AbortController()
    const { signal } = abort
    const none = wanted.prefix ? `No ${online.checked ? 'online ' : ''}user has an id that begins with “${wanted.prefix}”.` : online.checked ? 'Nobody is online.' : 'There are no users yet. Add one with jam-mqtt user add.'
    replace(list)
    pages(list, 'Users', [['User', ''], ['Name', 'wide'], ['Connection', ''], ['Friends', 'number'], ['Token', ''], ['Push', '']],
      (after) => get(['users'], { ...wanted, after }, { signal }),
      (user) => [userLink(user.id), user.name, connection(user), number(user.friends), yesNo(user.token, 'none'), yesNo(user.push)], none)
  }
  const soon = () => { clearTimeout(timer); timer = setTimeout(search, pauseMs) }
  prefix.addEventListener('input', hasList ? soon : () => {})
  online.addEventListener('change', search)

  const form = h('form', {
    class: 'bar',
    role: 'search',
    onsubmit: (event) => { event.preventDefault(); if (prefix.value.trim()) location.hash = link('users', prefix.value.trim()) }
  },
  h('span', { class: 'field' }, h('label', { for: 'prefix' }, hasList ? 'Id begins with' : 'User id'), prefix),
  hasList && h('label', { class: 'check' }, online, 'online only'),
  h('button', { type: 'submit' }, 'Open'))
  replace(place, form, list)
  if (hasList) search()
  else replace(list, empty('This server does not list its users. Type an id to see a user.'))
  return () => { abort?.abort(); clearTimeout(timer) }
}

export function connection (user) {
  if (user.online === undefined) return '–'
  return user.online ? tag('online', 'good') : tag('away')
}
