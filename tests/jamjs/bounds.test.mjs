// What somebody with a friend's token, or a browser short of room, can make this one hold: each has its bound.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { FriendList } from '../../crates/server/web/jam/friends.js'
import { Inbox } from '../../crates/server/web/jam/inbox.js'
import { Browser, settle } from './browser.mjs'
import { Faults } from './faults.mjs'
import { connected, message, page } from './page.mjs'

const MB = 1 << 20
const arrive = (one, payload, options) => one.socket.publish('/1/inbox', payload, { from: '2', ...options })
const acknowledged = (one) => one.socket.take('puback').map(({ id }) => id)
const ids = async (one, friend) => (await one.jam.history(friend, { limit: 10_000 })).map(({ id }) => id)

/** How many messages of QoS 0 of each friend are stored, of `sent` that come while the store is busy. */
async function waiting (friends, sent, size) {
  let free
  const busy = new Promise((resolve) => { free = resolve })
  const kept = new Map(friends.map((friend) => [friend, 0]))
  const store = {
    async receive (items) {
      await busy
      for (const { from } of items) kept.set(from, kept.get(from) + 1)
      return []
    }
  }
  const inbox = new Inbox({}, store, new Browser().tab(), () => {}, assert.fail)
  const payload = new TextEncoder().encode(`{"id":"x","content":"${' '.repeat(Math.max(0, size - 30))}"}`)
  const acknowledged = []
  for (const from of friends) for (let number = 0; number < sent; number++) inbox.message({ id: null, dup: false, properties: { from }, payload }, { acknowledge: () => {} })
  inbox.message({ id: 7, dup: false, properties: { from: friends[0] }, payload }, { acknowledge: (id) => acknowledged.push(id) })
  free()
  await settle()
  assert.ok(acknowledged.includes(7), 'what is to be acknowledged is never dropped')
  kept.set(friends[0], kept.get(friends[0]) - 1)
  return [...kept.values()]
}

test('QoS 0 that waits for the store has a bound in bytes and in number, of which one friend has half at most', async () => {
  const friends = ['2', '3', '4']
  assert.deepEqual(await waiting(friends, 1, 16 * MB), [1, 1, 0])
  assert.deepEqual(await waiting(friends, 10, 4 * MB), [3, 3, 1])
  assert.deepEqual(await waiting(friends, 1500, 1), [1023, 1023, 1])
  assert.deepEqual(await waiting(friends, 100, 1), [100, 100, 100])
})

test('a friend whose messages are never decoded holds up nobody else for long, and later ones are decoded again', async () => {
  let answers = false
  const decode = (payload) => payload.from === '2' && !answers ? new Promise(() => {}) : { ...payload, content: 'decoded' }
  const one = await connected(new Browser(), { decode })
  one.socket.answersPings = true
  for (let id = 1; id <= 16; id++) arrive(one, message(`${id}`), { id })
  await one.tab.browser.advance(10_100)
  assert.equal(acknowledged(one).length, 16)
  for (let id = 1; id <= 15; id++) arrive(one, message(`again ${id}`), { id })
  arrive(one, message('other', 'x', '3'), { id: 16, from: '3' })
  await one.tab.browser.advance(2100)
  assert.equal(acknowledged(one).length, 16, 'not ten seconds again')
  answers = true
  arrive(one, message('good'), { id: 1 })
  await settle()
  assert.equal((await one.jam.history('2', { limit: 1 }))[0].content, 'decoded')
})

const friend = (user) => ({ user, name: `name ${user}`, blocked: false, publicKey: null })

test('a list of friends may have as many parts as the server sends', () => {
  const list = new FriendList()
  let whole = null
  for (let part = 1; part <= 512; part++) whole = list.take({ friends: [friend(`${part}`)], part, parts: 512, timestamp: 't' })
  assert.equal(whole.length, 512)
  assert.equal(list.take({ friends: [], part: 1, parts: 513, timestamp: 't' }), null)
})

test('parts of two lists never make one', () => {
  const list = new FriendList()
  const part = (part, parts, timestamp) => list.take({ friends: [friend(`${timestamp} ${part}`)], part, parts, timestamp })
  part(1, 2, 'a')
  assert.equal(part(2, 2, 'b'), null, 'of a later list, whose first part was lost')
  assert.equal(part(2, 2, 'a'), null, 'what was begun is over')
  part(1, 3, 'c')
  assert.equal(part(2, 2, 'c'), null)
  part(1, 3, 'd')
  part(1, 2, 'e')
  assert.deepEqual(part(2, 2, 'e').map(({ user }) => user), ['e 1', 'e 2'])
  for (const timestamp of [{ toString: 1 }, [[]], null, 5]) assert.equal(list.take({ friends: [friend('x')], part: 1, parts: 1, timestamp }).length, 1)
})

test('a list does not go on over a new connection', async () => {
  const one = await connected(new Browser())
  const tell = (part) => one.socket.publish('/1/friends', { friends: [friend(`${part}`)], part, parts: 2, timestamp: 't' })
  tell(1)
  one.socket.drop()
  await one.tab.browser.advance(1000)
  one.socket.accept()
  tell(2)
  await settle()
  assert.deepEqual(one.heard.friends, [])
})

test('a list of friends without an end is cut', () => {
  const list = new FriendList()
  const friends = Array(60_000).fill(friend('2'))
  list.take({ friends, part: 1, parts: 2, timestamp: 't' })
  assert.equal(list.take({ friends, part: 2, parts: 2, timestamp: 't' }).length, 65_536)
})

const NAMES = ['__proto__', 'constructor', 'toString', 'hasOwnProperty', 'length', '', '\ud800', 'x'.repeat(256)]

test('names of what objects have are ids and user ids like others', async () => {
  const one = await connected(new Browser())
  let packet = 0
  for (const from of NAMES) {
    for (const id of NAMES) {
      for (let copy = 0; copy < 2; copy++) arrive(one, JSON.stringify({ from, id, content: 'x', type: '__proto__' }), { id: ++packet, from })
    }
    await settle()
    one.socket.publish('/1/presence', JSON.stringify({ user: from, online: true }))
  }
  one.socket.publish('/1/friends', JSON.stringify({ friends: NAMES.map(friend), part: 1, parts: 1, timestamp: '' }))
  await settle()
  assert.equal(acknowledged(one).length, packet)
  const valid = NAMES.filter((id) => id)
  for (const from of valid.filter((name) => name !== '\ud800')) assert.deepEqual((await ids(one, from)).filter((id) => id), valid, from)
  assert.ok(one.jam.friends.filter(({ online }) => online).length >= 6)
  assert.equal({}.polluted, undefined)
})

test('after stop() the title counts nothing', async () => {
  const one = await connected(new Browser())
  arrive(one, message('a'), { id: 1 })
  await settle()
  assert.equal(one.tab.document.title, '(1) Chat')
  await one.jam.stop()
  assert.deepEqual([one.tab.document.title, one.tab.badges.at(-1)], ['Chat', 0])
})

test('a start that fails leaves nothing open, and the next one succeeds', async () => {
  const faults = new Faults()
  const browser = new Browser({ indexedDB: faults.factory() })
  const one = page(browser, { device: 'phone' })
  faults.broken = true
  await assert.rejects(one.jam.start())
  assert.deepEqual([browser.channels.size, faults.open], [0, 0])
  faults.broken = false
  await one.jam.start()
  await settle()
  one.socket.accept()
  await settle()
  assert.equal(one.jam.state.state, 'connected')
})

test('a browser that has closed the database: the first call after it succeeds', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  for (const database of faults.databases) database.close() // without a word, as on a phone that was asleep
  assert.equal((await one.jam.send('2', 'hello')).content, 'hello')
})
