// Mailboxes, pushes, lockouts: one list each.

import { get, remove } from './api.js'
import { bytes, empty, failed, h, load, moment, number, pages, replace, seconds, section, table, tag, userLink } from './dom.js'

const tabs = (label, choices, chosen, choose) => h('fieldset', { class: 'tabs' }, h('legend', { class: 'hidden' }, label),
  choices.map(([value, text]) => h('label', {}, h('input', { type: 'radio', name: label, value, checked: value === chosen, onchange: () => choose(value) }), h('span', {}, text))))

export function mailboxes (place) {
  const list = h('div', {})
  const show = (sort) => {
    replace(list)
    load(list, () => get(['mailboxes'], { sort, limit: 100 }), ({ items }) => {
      const some = items.filter((item) => item.messages > 0 || item.retained > 0)
      return some.length
        ? table('Mailboxes', [['User', ''], ['Messages', 'number'], ['Size', 'number'], ['Oldest waits', 'number'], ['Retained', 'number']],
          some.map((item) => [userLink(item.user), number(item.messages), bytes(item.bytes), item.oldest_secs === null ? '–' : seconds(item.oldest_secs), number(item.retained)]))
        : empty('Nothing waits: every message has been acknowledged by its receiver.')
    })
  }
  replace(place, h('div', { class: 'bar' }, tabs('Order', [['bytes', 'Largest first'], ['oldest', 'Oldest first']], 'bytes', show)), list)
  show('bytes')
}

const outcomes = ['sent', 'retry', 'refused', 'token_dead', 'expired', 'withdrawn']
const kinds = { sent: 'good', retry: 'warn', refused: 'bad', token_dead: 'bad', expired: 'warn' }

export function pushes (place) {
  const list = h('div', {})
  const show = (outcome) => {
    replace(list)
    pages(list, 'Pushes', [['Time', ''], ['Receiver', ''], ['Sender', ''], ['Outcome', ''], ['What the push service said', 'wide']],
      (after) => get(['pushes'], { outcome, limit: 100, after }),
      (push) => [moment(push.time), userLink(push.user), push.sender && userLink(push.sender), tag(push.reason.replaceAll('_', ' '), kinds[push.reason]), push.detail],
      outcome ? 'Of the last 1,000 pushes, none has this outcome.' : 'No push has been sent since the server started.')
  }
  replace(place, h('div', { class: 'bar' }, tabs('Outcome', [['', 'All'], ...outcomes.map((it) => [it, it.replaceAll('_', ' ')])], '', show)), list)
  show('')
}

export function lockouts (place) {
  const answer = h('div', { 'aria-live': 'polite' })
  const address = h('input', { id: 'address', autocomplete: 'off', spellcheck: 'false', required: true, placeholder: '192.0.2.7' })
  const list = h('div', {})

  const lift = async (source, again) => {
    try {
      await remove(['lockouts', source])
      again()
    } catch (error) {
      replace(answer, failed(error))
    }
  }
  const all = () => {
    replace(list)
    pages(list, 'Addresses that are locked out', [['Address', 'wide'], ['Failed logins', 'number'], ['Ends in', 'number'], ['', 'acts']],
      (after) => get(['lockouts'], { limit: 100, after }),
      (it) => [h('span', { class: 'id' }, it.source), number(it.failures), seconds(it.ends_in_secs),
        h('button', { type: 'button', 'aria-label': `Lift the lockout of ${it.source}`, onclick: () => lift(it.source, () => { replace(answer); all() }) }, 'Lift')],
      'No address is locked out.')
  }
  const one = (text) => {
    replace(answer)
    load(answer, () => get(['lockouts', text]), (found) => section(found.source,
      h('p', {}, found.locked
        ? `Locked out: clients of this address are refused, whatever their tokens are. It ends in ${seconds(found.ends_in_secs)}.`
        : found.failures ? `Not locked out. ${number(found.failures)} failed ${found.failures === 1 ? 'login counts' : 'logins count'} against it.` : 'Nothing counts against this address.'),
      found.failures > 0 && h('p', { class: 'buttons start' }, h('button', { type: 'button', onclick: () => lift(text, () => { one(text); all() }) }, found.locked ? 'Lift the lockout' : 'Forget the failures'))))
  }
  replace(place,
    h('form', { class: 'bar', onsubmit: (event) => { event.preventDefault(); one(address.value.trim()) } },
      h('span', { class: 'field' }, h('label', { for: 'address' }, 'Address'), address), h('button', { type: 'submit' }, 'Look up')),
    h('p', { class: 'muted' }, 'Too many failed logins lock an address out for a while (limits.failed_auth). A proxy that does not pass on addresses makes this happen to everybody behind it.'),
    answer, section('Locked out now', list))
  all()
}
