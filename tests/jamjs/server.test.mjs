// Against the built server, over real WebSockets: what users of jam.js see, also when the server is killed under them.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { IDBFactory, IDBKeyRange } from 'fake-indexeddb'
import WebSocket from 'ws'
import { Jam } from '../../crates/server/web/jam.js'
import { browser } from '../../crates/server/web/jam/world.js'
import { Server, sleep } from '../mqttjs/server.mjs'

globalThis.IDBKeyRange = IDBKeyRange

const types = ['state', 'friends', 'message', 'update', 'presence', 'unread', 'error', 'logout', 'leader']
const waitMs = 90_000

const pages = []
let server
before(async () => { server = await new Server().start() })
after(async () => {
  for (const { jam } of pages) await jam.stop()
  await server.stop()
})

/** A user with a browser of their own, or the one that is given. */
async function join (user, { indexedDB = new IDBFactory(), ...options } = {}) {
  const world = { ...browser(), WebSocket, indexedDB: () => indexedDB, BroadcastChannel: undefined }
  const jam = new Jam({ url: `ws://127.0.0.1:${server.ports.ws}/mqtt`, user: user.id, token: user.token, ...options }, world)
  const one = { jam, indexedDB, heard: Object.fromEntries(types.map((type) => [type, []])) }
  for (const type of types) jam.on(type, ({ detail }) => one.heard[type].push(detail))
  pages.push(one)
  await jam.start()
  return one
}

async function until (what, happens) {
  for (const end = Date.now() + waitMs; Date.now() < end; await sleep(10)) if (await happens()) return
  assert.fail(`${what}: not within ${waitMs / 1000} s`)
}

const reaches = (one, state) => until(state, () => one.jam.state.state === state)
/** How many own messages have got so far. */
const came = ({ heard }, state) => heard.update.filter((message) => message.state === state).length
const all = (one, friend) => one.jam.history(friend.id, { limit: 100_000 })

test('two friends write to each other, with ticks and presence', async () => {
  const [ann, ben] = server.friends()
  const [one, two] = [await join(ann), await join(ben)]
  await until('presence', () => one.heard.presence.some(({ user, online }) => user === ben.id && online))
  const sent = await one.jam.send(ben.id, 'Grüße 😀')
  await until('the message', () => two.heard.message.length)
  assert.deepEqual([two.heard.message[0].content, two.heard.message[0].from, two.heard.message[0].id], ['Grüße 😀', ann.id, sent.id])
  await until('delivered', async () => (await all(one, ben))[0].state === 'delivered')
  const picture = Uint8Array.from({ length: 1_000_000 }, (_, at) => [0xFF, 0xD8, 0xFF][at] ?? at % 251)
  await two.jam.send(ann.id, picture)
  await until('the picture', () => one.heard.message.some(({ kind }) => kind === 'picture'))
  const { content } = one.heard.message.find(({ kind }) => kind === 'picture')
  assert.deepEqual(new Uint8Array(await content.arrayBuffer()), picture)
  await two.jam.stop()
  await until('absence', () => one.heard.presence.at(-1).online === false)
})

test('a stranger, and a friend who has blocked: the reason stands at the message, and the next one goes', async () => {
  const [ann, ben] = server.friends()
  const stranger = server.user()
  const one = await join(ann)
  await one.jam.send(stranger.id, 'no')
  server.block(ben, ann)
  const blocked = await one.jam.send(ben.id, 'blocked')
  await until('both refused', () => one.heard.update.filter(({ state }) => state === 'failed').length === 2)
  for (const { reason } of one.heard.update) assert.deepEqual(reason, { handler: 'authorizePublish', category: 'friends', message: 'not friends with the receiver', code: 0x87 })
  server.block(ben, ann, 0)
  await one.jam.send(ben.id, 'after')
  await one.jam.retry(blocked.id)
  await until('sent', async () => (await all(one, ben)).every(({ state }) => state === 'sent'))
})

test('a thousand waiting messages come in their order, each once', async () => {
  const [ann, ben] = server.friends()
  const one = await join(ann)
  for (let number = 0; number < 1000; number++) await one.jam.send(ben.id, `${number}`)
  await until('all sent', () => came(one, 'sent') === 1000)
  const two = await join(ben)
  await until('all here', () => two.heard.message.length >= 1000)
  assert.deepEqual((await all(two, ann)).map(({ content }) => Number(content)), [...Array(1000).keys()])
  await until('all delivered', () => came(one, 'delivered') === 1000)
})

test('another device logs this one out; "Use here" takes it back', async () => {
  const [ann, ben] = server.friends()
  const [one, two] = [await join(ann), await join(ben)]
  await reaches(one, 'connected')
  const other = await join(ann)
  await reaches(one, 'logout')
  assert.deepEqual(one.heard.logout.map(({ category }) => category), ['logout'])
  await one.jam.start()
  await reaches(other, 'logout')
  await two.jam.send(ann.id, 'where are you?')
  await until('the message', () => one.heard.message.length)
  assert.deepEqual(other.heard.message, [])
})

test('a wrong token, and one that changes while connected', async () => {
  const ann = server.user()
  const wrong = await join(ann, { token: 'wrong' })
  await reaches(wrong, 'refused')
  assert.deepEqual([wrong.jam.state.reason.category, wrong.jam.state.reason.message], ['api_token', 'wrong api token'])
  const asked = []
  let token = ann.token
  const one = await join(ann, { token: async (why) => { asked.push(why.refused); return token } })
  await reaches(one, 'connected')
  token = 'new'
  server.sql(`UPDATE accounts SET user_api_token = 'new' WHERE user_id = ${ann.id};`)
  await until('the new token', () => asked.includes(true))
  await reaches(one, 'connected')
})

test('the list of friends comes with the connection and with each change', async () => {
  const [ann, ben] = server.friends()
  const one = await join(ann)
  await until('the list', () => one.jam.friends.some(({ user, blocked }) => user === ben.id && !blocked))
  server.block(ann, ben)
  await until('the block', () => one.jam.friends.some(({ user, blocked }) => user === ben.id && blocked))
  const carla = server.user()
  server.befriend(ann, carla)
  await until('the new friend', () => one.jam.friends.length === 2)
  assert.deepEqual(one.heard.error, [])
})

test('the outbox goes out after a reload', async () => {
  const [ann, ben] = server.friends()
  const one = await join(ann, { url: 'ws://127.0.0.1:1/mqtt' })
  for (const content of ['a', 'b', 'c']) await one.jam.send(ben.id, content)
  await one.jam.stop()
  const again = await join(ann, { indexedDB: one.indexedDB })
  await until('sent', async () => (await all(again, ben)).every(({ state }) => state === 'sent'))
  const two = await join(ben)
  await until('there', () => two.heard.message.length === 3)
  assert.deepEqual(two.heard.message.map(({ content }) => content), ['a', 'b', 'c'])
})

test('kill -9 in mid-conversation, five times: nothing acknowledged is missing, nothing is there twice, all in order', async () => {
  const [ann, ben] = server.friends()
  const [one, two] = [await join(ann), await join(ben)]
  const ports = server.ports
  let writing = true
  const written = new Map([[one, 0], [two, 0]])
  const write = async (from, to) => {
    for (; writing; await sleep(20)) await from.jam.send(to.id, `${written.set(from, written.get(from) + 1).get(from) - 1}`)
  }
  const writers = [write(one, ben), write(two, ann)]
  for (let round = 0; round < 5; round++) {
    await reaches(one, 'connected')
    await reaches(two, 'connected')
    await sleep(100 + Math.random() * 400)
    await server.kill()
    await server.start(false, `127.0.0.1:${ports.tcp}`, `127.0.0.1:${ports.ws}`)
  }
  writing = false
  await Promise.all(writers)
  await until('all delivered', () => [one, two].every((from) => came(from, 'delivered') === written.get(from)))
  for (const [from, to, friend] of [[one, two, ann], [two, one, ben]]) {
    const numbers = [...Array(written.get(from)).keys()]
    assert.ok(numbers.length > 100, `only ${numbers.length} were written`)
    assert.deepEqual((await all(to, friend)).filter(({ own }) => !own).map(({ content }) => Number(content)), numbers)
    assert.deepEqual(to.heard.message.filter(({ own }) => !own).map(({ content }) => Number(content)), numbers)
    assert.deepEqual(from.heard.error, [])
    assert.deepEqual(from.heard.update.filter(({ state }) => state === 'failed'), [])
  }
})
