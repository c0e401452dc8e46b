// Why does a user get no messages? The answer of the API in sentences: what stands in the way first, then what is fine.

import { get, offers } from './api.js'
import { bytes, h, link, load, number, replace, seconds, section } from './dom.js'
import { eventText } from './live.js'

const sendersOffered = 1000

/** What each finding means, and what to do: `[sentence, whether it is certain to stop messages]`. */
const sentences = {
  no_account: (id) => [`There is no account ${id}. Nobody can write to it.`, true],
  no_token: (id) => [`${id} has no token, so no device can log in. Give a new one.`, true],
  no_sender: (id, from) => [`There is no account ${from}.`, true],
  sender_without_token: (id, from) => [`${from} has no token, so no device of theirs can log in and write.`, true],
  not_friends: (id, from) => [`${id} and ${from} are not friends, so ${from} may not write.`, true],
  blocked: (id, from) => [`${id} has blocked ${from}. What ${from} writes is refused.`, true],
  has_blocked: (id, from) => [`${from} has blocked ${id}, and therefore may not write to ${id} either.`, true],
  half_a_friendship: (id, from) => [`Only half of the friendship is in the accounts database, so what ${from} writes is refused. Befriend the two again.`, true],
  mailbox_full: (id) => [`The mailbox of ${id} has no room for the sender: new messages are refused until some are received or purged.`, true],
  no_device: (id) => [`${id} has no device: none has ever connected, or its session has ended. Messages wait until one connects.`, false],
  inbox_not_subscribed: (id) => [`No device of ${id} has subscribed to the inbox. Messages wait until one does: the app has to.`, true],
  away: (id) => [`The devices of ${id} that read the inbox are away. Messages wait until one is back.`, false],
  not_acknowledged: () => ['A connected device has held messages for more than a minute without acknowledging them. The app has to.', true]
}

const row = (mark, meaning, kind, name, text) => h('li', { class: kind },
  h('span', { class: 'mark', 'aria-hidden': 'true' }, mark), h('span', { class: 'hidden' }, `${meaning}: `), h('b', {}, name), h('span', {}, text))
const fine = (name, text) => row('✓', 'fine', 'ok', name, text)
const fact = (name, text) => row('·', 'to know', 'info', name, text)
const finding = (slug, id, from) => {
  const [text, stops] = sentences[slug]?.(id, from) ?? [slug.replaceAll('_', ' '), true]
  return stops ? row('✗', 'this stops messages', 'problem', 'Stopped', text) : row('!', 'messages wait', 'warning', 'Waiting', text)
}

const listed = (devices) => devices.map(({ client }) => client).join(', ')

function fineOnes ({ account, token, sender, devices }) {
  const ready = devices.filter((device) => device.connected && device.inbox)
  return [
    account && token && fine('Account', 'It exists, and has a token.'),
    sender?.may_write && fine('Sender', `${sender.user} is a friend, and may write.`),
    sender?.has_room && fine('Room', `The mailbox has room for messages of ${sender.user}.`),
    ready.length > 0 && fine('Devices', `Connected, and subscribed to the inbox: ${listed(ready)}.`)
  ]
}

function facts ({ mailbox, devices, push }, events) {
  const busy = devices.filter((device) => device.in_flight > 0)
  const last = (type) => events.find((event) => event.type === type)
  const [refused, pushed] = [last('refused'), last('push')]
  return [
    fact('Mailbox', mailbox.messages
      ? `${number(mailbox.messages)} ${mailbox.messages === 1 ? 'message waits' : 'messages wait'}, ${bytes(mailbox.bytes)}; the oldest for ${seconds(mailbox.oldest_secs)}.`
      : 'Nothing waits.'),
    fact('In flight', busy.length ? busy.map((device) => `${number(device.in_flight)} to ${device.client}`).join(', ') : 'Nothing.'),
    refused && fact('Last refusal', [h('time', { datetime: refused.time }, refused.time), ` ${eventText(refused)}`]),
    fact('Last push', pushed ? [h('time', { datetime: pushed.time }, pushed.time), ` ${eventText(pushed)}`] : push ? 'None since the server started.' : 'Pushes cannot be addressed: the app has left no notification token.')
  ]
}

async function ask (id, from) {
  const [answer, events] = await Promise.all([
    get(['users', id, 'diagnosis'], { from }),
    offers('/users/{id}/events') ? get(['users', id, 'events']).catch(() => ({ items: [] })) : { items: [] }
  ])
  return { answer, events: events.items }
}

export function diagnosis (id, from) {
  const place = h('div', {})
  const sender = h('input', { id: 'from', list: 'senders', value: from, autocomplete: 'off', spellcheck: 'false' })
  const senders = h('datalist', { id: 'senders' })
  const look = () => {
    replace(place)
    load(place, () => ask(id, sender.value.trim()), ({ answer, events }) => [
      answer.findings.length === 0 && h('p', { class: 'verdict' }, answer.sender
        ? `Nothing that the server knows of keeps messages of ${answer.sender.user} from ${id}.`
        : `Nothing that the server knows of keeps messages from ${id}. Choose a sender to look at friendship and blocks.`),
      h('ol', { class: 'findings' }, answer.findings.map((slug) => finding(slug, id, answer.sender?.user)), fineOnes(answer), facts(answer, events))
    ])
  }
  get(['users', id, 'friends'], { limit: sendersOffered }).then(({ items }) =>
    replace(senders, items.map((it) => h('option', { value: it.id }, it.name ?? ''))), () => {})
  look()
  return section(`Why does ${id} get no messages?`,
    h('form', {
      class: 'bar',
      onsubmit: (event) => {
        event.preventDefault()
        const chosen = sender.value.trim()
        history.replaceState(null, '', link('users', id) + (chosen ? `?from=${encodeURIComponent(chosen)}` : ''))
        look()
      }
    }, h('span', { class: 'field' }, h('label', { for: 'from' }, 'From user'), sender), senders, h('button', { type: 'submit' }, 'Look')),
    h('div', { 'aria-live': 'polite' }, place))
}
