// One user: account, devices, friends, mailbox, what happened, and why somebody gets no messages.

import { get, offers, put, remove } from './api.js'
import { diagnosis } from './diagnosis.js'
import { confirm, showOnce } from './dialog.js'
import { bytes, empty, facts, h, link, load, number, pages, replace, seconds, section, table, tag, userLink } from './dom.js'
import { eventRow, eventColumns } from './live.js'
import { connection } from './users.js'

const button = (text, onclick, { kind = '', label } = {}) => h('button', { type: 'button', class: kind, onclick, 'aria-label': label }, text)

export function user (place, id, query) {
  const [account, devices, mailbox, friends, events] = Array.from({ length: 5 }, () => h('div', {}))
  const said = h('p', { class: 'said', role: 'status' })
  const tell = (text) => { said.textContent = text }
  const failedWrite = (error) => tell(error.message)

  const showAccount = () => load(account, () => get(['users', id]), (it) => facts([
    ['Name', it.name ?? '–'],
    ['Connection', connection(it)],
    ['Token', it.token ? 'yes' : tag('none: nobody can log in', 'warn')],
    ['Push', it.push ? 'can be addressed' : 'cannot be addressed'],
    ['Friends', number(it.friends)]
  ]))

  const kick = async (device, fate) => {
    const done = await confirm({
      title: fate === 'end' ? 'End the session' : 'Disconnect the device',
      text: [
        fate === 'end'
          ? `The session of ${device} ends: its subscriptions go, and so does what is on its way to it at this moment. What waits in the mailbox stays.`
          : `${device} is disconnected. Its session stays, and what waits is delivered when it is back.`,
        'Clients come back at once by themselves. To keep somebody out, give the user a new token.'
      ],
      button: fate === 'end' ? 'End the session' : 'Disconnect',
      repeat: fate === 'end' ? device : null,
      action: () => remove(['users', id, 'devices', device], { session: fate })
    })
    if (!done) return
    tell(`${device}: ${done.note}.`)
    showDevices()
  }
  const showDevices = () => load(devices, () => get(['users', id, 'devices']), ({ items }) => (items.length
    ? table('Devices', [['Device', ''], ['State', ''], ['For', 'number'], ['Address', ''], ['MQTT', ''], ['Inbox', ''], ['In flight', 'number'], ['Session', ''], ['', 'acts']],
      items.map((it) => [h('span', { class: 'id' }, it.client), it.connected ? tag('connected', 'good') : tag('away'), seconds(it.since_secs), it.address, it.version,
        it.inbox ? 'subscribed' : tag('not subscribed', 'warn'), number(it.in_flight), sessionOf(it),
        [it.connected && button('Kick', () => kick(it.client, 'keep'), { label: `Kick ${it.client}` }), button('End session', () => kick(it.client, 'end'), { label: `End session of ${it.client}` })]]))
    : empty('No device is connected, and no session is remembered: what is sent to this user waits in the mailbox.')))

  const purge = async (mailboxOf) => {
    const done = await confirm({
      title: 'Purge the mailbox',
      text: [`${number(mailboxOf.messages)} ${mailboxOf.messages === 1 ? 'message is' : 'messages are'} removed before user ${id} has received ${mailboxOf.messages === 1 ? 'it' : 'them'}. It cannot be undone. Sessions and retained messages stay.`],
      button: 'Purge',
      repeat: id,
      action: () => remove(['users', id, 'mailbox'])
    })
    if (!done) return
    tell(`${number(done.removed)} ${done.removed === 1 ? 'message was' : 'messages were'} removed.`)
    showMailbox()
  }
  const showMailbox = () => load(mailbox, () => get(['users', id, 'mailbox']), (it) => [
    facts([['Messages waiting', number(it.messages)], ['Size', bytes(it.bytes)], ['Oldest waits', it.oldest_secs === null ? '–' : seconds(it.oldest_secs)], ['Retained', number(it.retained)]]),
    it.messages > 0
      ? h('p', { class: 'buttons start' }, button('Purge …', () => purge(it), { kind: 'danger' }))
      : h('p', { class: 'muted' }, 'Nothing waits.')
  ])

  const change = (ask, text, ...redraw) => async () => {
    try {
      await ask()
      tell(text)
      redraw.forEach((draw) => draw())
    } catch (error) { failedWrite(error) }
  }
  const unfriend = async (friend) => {
    const done = await confirm({
      title: 'End the friendship',
      text: [`Users ${id} and ${friend} can no longer write to each other. What waits already is still delivered.`],
      button: 'End the friendship',
      repeat: friend,
      action: () => remove(['users', id, 'friends', friend])
    })
    if (done) { tell(`${id} and ${friend} are no friends any more.`); showFriends() }
  }
  const showFriends = () => {
    replace(friends)
    pages(friends, 'Friends', [['Friend', ''], ['Name', 'wide'], ['Connection', ''], ['May write', ''], ['', 'acts']],
      (after) => get(['users', id, 'friends'], { limit: 100, after }),
      (it) => [userLink(it.id), it.name, connection(it), blockOf(it, id), [
        offers('/users/{id}/diagnosis') && h('a', { class: 'button', href: `${link('users', id)}?from=${encodeURIComponent(it.id)}`, 'aria-label': `Why? What keeps messages of ${it.id} from ${id}` }, 'Why?'),
        it.blocked
          ? button('Unblock', change(() => remove(['users', id, 'blocks', it.id]), `${id} does not block ${it.id} any more.`, showFriends), { label: `Unblock ${it.id}` })
          : button('Block', change(() => put(['users', id, 'blocks', it.id]), `${id} blocks ${it.id}.`, showFriends), { label: `Block ${it.id}` }),
        button('Unfriend', () => unfriend(it.id), { label: `Unfriend ${it.id}` })]],
      'This user has no friends, so nobody can write to them.')
  }
  const newFriend = h('input', { id: 'friend', required: true, autocomplete: 'off', spellcheck: 'false' })
  const befriend = h('form', {
    class: 'bar',
    onsubmit: (event) => {
      event.preventDefault()
      const other = newFriend.value.trim()
      change(() => put(['users', id, 'friends', other]), `${id} and ${other} are friends.`, showFriends, () => { newFriend.value = '' })()
    }
  }, h('span', { class: 'field' }, h('label', { for: 'friend' }, 'Befriend with user'), newFriend), h('button', { type: 'submit' }, 'Add'))

  const newToken = async () => {
    const done = await confirm({
      title: 'Give a new token',
      text: [`The token that user ${id} has now ends. All their devices are disconnected and need the new one.`],
      button: 'Give a new token',
      repeat: id,
      action: () => put(['users', id, 'token'])
    })
    if (!done) return
    await showOnce(`The new token of user ${id}`, 'It is shown this once: the server keeps it in a form that cannot be read back.', done.token)
    showAccount()
    showDevices()
  }
  const removeAccount = async () => {
    const done = await confirm({
      title: 'Remove the account',
      text: [`User ${id} and their friendships are removed. Within a second their connections end, and what waits for them goes. It cannot be undone.`],
      button: 'Remove the account',
      repeat: id,
      action: () => remove(['users', id])
    })
    if (done) location.hash = '#/users'
  }

  replace(place, said,
    section('Account', account, h('p', { class: 'buttons start' },
      offers('/users/{id}/token', 'put') && button('New token …', newToken),
      offers('/users/{id}', 'delete') && button('Remove the account …', removeAccount, { kind: 'danger' }))),
    offers('/users/{id}/diagnosis') && diagnosis(id, query.get('from') ?? ''),
    section('Devices', devices),
    section('Mailbox', mailbox),
    offers('/users/{id}/friends') && section('Friends', friends, befriend),
    offers('/users/{id}/events') && section('Last events', events))
  if (offers('/users/{id}')) showAccount()
  showDevices()
  showMailbox()
  if (offers('/users/{id}/friends')) showFriends()
  if (offers('/users/{id}/events')) {
    load(events, () => get(['users', id, 'events']), ({ items }) => (items.length
      ? table('Last events', eventColumns.filter(([title]) => title !== 'User'), items.map((it) => eventRow(it, { withUser: false })))
      : empty('Nothing has happened to this user since the server started, or it was long ago.')))
  }
  return null
}

function sessionOf (device) {
  if (device.session_ends_in_secs !== null) return `ends in ${seconds(device.session_ends_in_secs)}`
  if (!device.connected) return 'never ends'
  return device.session_expiry_secs ? `kept for ${seconds(device.session_expiry_secs)}` : 'ends with the connection'
}

function blockOf (friend, id) {
  if (friend.blocked && friend.been_blocked) return tag('no: each has blocked the other', 'bad')
  if (friend.blocked) return tag(`no: ${id} has blocked ${friend.id}`, 'bad')
  return friend.been_blocked ? tag(`no: ${friend.id} has blocked ${id}`, 'bad') : 'yes'
}
