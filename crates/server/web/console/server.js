// What runs here: version, listeners, certificates, effective settings, and the limits that follow from them.

import { get } from './api.js'
import { bytes, facts, h, load, number, seconds, section, table, tag } from './dom.js'
import { latest, seriesOf } from './numbers.js'

const daysUntilAlarm = 14

function certificate (name) {
  const found = seriesOf(latest(), 'jam_tls_certificate_expiry_timestamp_seconds').find(({ labels, value }) => labels.listener === name && value > 0)
  if (!found) return '–'
  const left = found.value - Date.now() / 1000
  if (left <= 0) return tag('expired', 'bad')
  return tag(`${seconds(left)} left`, left < daysUntilAlarm * 86400 ? 'warn' : 'good')
}

export function server (place) {
  load(place, () => get(['server']), (it) => {
    const settings = h('div', {})
    const filter = h('input', { id: 'filter', type: 'search', autocomplete: 'off', spellcheck: 'false', oninput: () => show() })
    const changed = h('input', { id: 'changed', type: 'checkbox', onchange: () => show() })
    const show = () => {
      const some = it.settings.filter(({ name, from }) => name.includes(filter.value.trim()) && (!changed.checked || from !== 'the default'))
      settings.replaceChildren(some.length
        ? table('Settings', [['Setting', ''], ['Value', 'wide'], ['From', '']], some.map(({ name, value, from }) => [h('code', {}, name), h('code', {}, value), from]))
        : h('p', { class: 'empty' }, changed.checked && !filter.value ? 'Every setting is at its default.' : 'No setting fits.'))
    }
    show()
    return [
      section('Program', facts([['Version', it.version], ['Up for', seconds(it.uptime_secs)]])),
      section('Listeners', table('Listeners', [['Listener', ''], ['Address', 'wide'], ['Certificate', '']],
        it.listeners.map(({ name, address }) => [name, h('code', {}, address), certificate(name)]))),
      section('Settings', h('div', { class: 'bar' }, h('span', { class: 'field' }, h('label', { for: 'filter' }, 'Name contains'), filter), h('label', { class: 'check' }, changed, 'changed ones only')), settings),
      section('Limits', h('p', { class: 'muted' }, 'What one packet, connection, user, friend or address can make the server hold or do.'),
        table('Limits', [['Of', ''], ['What', 'wide'], ['At most', 'number']], it.limits.map((limit) => [limit.of, limit.what, limit.bytes ? bytes(limit.value) : number(limit.value)])))
    ]
  })
}
