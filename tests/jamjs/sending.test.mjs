// What goes out: kept before it goes, in each friend's order, repeated until the server has it, and refused with its reason.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Outbox } from '../../crates/server/web/jam/outbox.js'
import { Browser, settle } from './browser.mjs'
import { Faults } from './faults.mjs'
import { clientId, connected, page, reconnected, started } from './page.mjs'

const published = (one) => one.socket.take('publish')
const contents = (packets) => packets.map(({ payload: { content } }) => content)
const states = async (one, friend = '2') => (await one.jam.history(friend)).map(({ content, state }) => [content, state])
const NOT_FRIENDS = { handler: 'authorizePublish', category: 'friends', message: 'not friends with the receiver' }

/** A refusal as the server makes it: the error, then the acknowledgement. */
async function refuse (one, { id }, category, message, code) {
  one.socket.refuse(clientId, { category, message, messageId: id })
  one.socket.puback(id, code)
  await settle()
}

test('a message is in the outbox before it goes out; ✓ with the PUBACK, ✓✓ with the receipt', async () => {
  const one = await connected(new Browser())
  const sent = await one.jam.send('2', 'Hello')
  assert.deepEqual([sent.state, sent.own, sent.friend, sent.from, sent.content, sent.kind], ['queued', true, '2', '1', 'Hello', 'text'])
  assert.match(sent.id, /^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
  await settle()
  const [packet] = published(one)
  assert.deepEqual({ ...packet, id: 0 }, { type: 'publish', topic: '/2/inbox', id: 0, dup: false, qos: 1, payload: { from: '1', id: sent.id, timestamp: '2026-01-31T12:00:00.000Z', content: 'Hello', type: 0 } })
  one.socket.puback(packet.id)
  await settle()
  one.socket.publish('/1/receipts', { type: 'receipt', status: 'delivered', to: '2', id: sent.id, messageId: packet.id, timestamp: '2026-01-31T12:00:01.000Z' }, { id: 5 })
  await settle()
  assert.deepEqual(one.socket.take('puback').map(({ id }) => id), [5])
  assert.deepEqual(one.heard.message.map(({ id, state }) => [id, state]), [[sent.id, 'queued']])
  assert.deepEqual(one.heard.update.map(({ id, state }) => [id, state]), [[sent.id, 'sent'], [sent.id, 'delivered']])
})

test('what cannot be stored is not sent: send() says so', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  faults.full = () => true
  await assert.rejects(one.jam.send('2', 'x'))
  await settle()
  assert.deepEqual(published(one), [])
  assert.deepEqual(one.heard.message, [])
})

test('send() wants a user id, content that is JSON, and a start', async () => {
  const one = await connected(new Browser())
  for (const friend of ['', 'a/b', '+', '#', '$x', 'a:b', '\0', 'x'.repeat(65), 'é'.repeat(33), null, 5]) await assert.rejects(one.jam.send(friend, 'x'), TypeError)
  for (const content of [undefined, 1n, () => {}, Symbol('x')]) await assert.rejects(one.jam.send('2', content))
  await one.jam.send('é'.repeat(32), 'x')
  await one.jam.stop()
  await assert.rejects(one.jam.send('2', 'x'), /start/)
})

test('written offline, it goes out with the connection, in its order, also after a reload', async () => {
  const browser = new Browser()
  const one = await started(browser)
  for (const content of ['a', 'b', 'c']) await one.jam.send('2', content)
  one.tab.kill()
  const next = await connected(browser)
  const seen = []
  for (let round = 0; round < 3; round++) {
    const [packet] = published(next)
    seen.push(packet.payload.content)
    next.socket.puback(packet.id)
    await settle()
  }
  assert.deepEqual(seen, ['a', 'b', 'c'])
  assert.deepEqual(await states(next), [['a', 'sent'], ['b', 'sent'], ['c', 'sent']])
})

test('one message of a friend is on its way at a time, and 16 in all', async () => {
  const one = await connected(new Browser())
  for (let friend = 2; friend < 22; friend++) for (const content of ['first', 'second']) await one.jam.send(`${friend}`, content)
  await settle()
  const first = published(one)
  assert.deepEqual(contents(first), Array(16).fill('first'))
  assert.equal(new Set(first.map(({ id }) => id)).size, 16)
  one.socket.puback(first[0].id)
  await settle()
  assert.equal(published(one).length, 1)
})

test('Receive Maximum 1: one at a time, whoever it is for', async () => {
  const one = await connected(new Browser(), {}, { receiveMaximum: 1 })
  for (const friend of ['2', '3', '4']) await one.jam.send(friend, friend)
  await settle()
  for (const friend of ['2', '3', '4']) {
    const packets = published(one)
    assert.deepEqual(contents(packets), [friend])
    one.socket.puback(packets[0].id)
    await settle()
  }
})

test('a Receive Maximum that is smaller on the next connection holds also for what was on its way', async () => {
  const one = await connected(new Browser())
  for (const friend of ['2', '3', '4']) await one.jam.send(friend, friend)
  await settle()
  assert.equal(published(one).length, 3)
  one.socket.drop()
  await one.tab.browser.advance(1000)
  await reconnected(one, { receiveMaximum: 1, present: true })
  for (const friend of ['2', '3', '4']) {
    const packets = published(one)
    assert.deepEqual([contents(packets), packets[0].dup], [[friend], true])
    one.socket.puback(packets[0].id)
    await settle()
  }
})

test('a message larger than Maximum Packet Size fails at once, and the next one goes', async () => {
  const one = await connected(new Browser(), {}, { maximumPacketSize: 300 })
  await one.jam.send('2', 'x'.repeat(300))
  await one.jam.send('2', 'small')
  await settle()
  assert.deepEqual(contents(published(one)), ['small'])
  assert.deepEqual(one.heard.update.map(({ state, reason: { category, code } }) => [state, category, code]), [['failed', 'size', 0x95]])
})

test('a lost PUBACK: the message goes again, with its id, packet id and DUP, and is sent once', async () => {
  const one = await connected(new Browser())
  await one.jam.send('2', 'a')
  await one.jam.send('2', 'b')
  await settle()
  const [first] = published(one)
  one.socket.drop()
  await one.tab.browser.advance(1000)
  await reconnected(one, { present: true })
  const [again] = published(one)
  assert.deepEqual(again, { ...first, dup: true })
  one.socket.puback(again.id)
  await settle()
  assert.deepEqual(contents(published(one)), ['b'])
  assert.deepEqual(one.heard.update.map(({ content, state }) => [content, state]), [['a', 'sent']])
})

test('a session that the server has lost gets the message as a new one', async () => {
  const one = await connected(new Browser())
  await one.jam.send('2', 'a')
  await settle()
  const [first] = published(one)
  one.socket.drop()
  await one.tab.browser.advance(1000)
  await reconnected(one, { present: false })
  assert.deepEqual(published(one), [first])
})

test('a receipt that comes instead of the PUBACK settles it', async () => {
  const one = await connected(new Browser())
  const { id } = await one.jam.send('2', 'a')
  await settle()
  published(one)
  one.socket.drop()
  await one.tab.browser.advance(1000)
  one.socket.accept({ present: true })
  one.socket.publish('/1/receipts', { type: 'receipt', status: 'delivered', to: '2', id }, { id: 1 })
  await settle()
  for (const packet of published(one)) one.socket.puback(packet.id)
  await settle()
  assert.deepEqual(await states(one), [['a', 'delivered']])
  one.socket.drop()
  await one.tab.browser.advance(2000)
  await reconnected(one)
  assert.deepEqual(published(one), [])
})

test('a refusal is final with its reason, and holds up nothing', async () => {
  const one = await connected(new Browser())
  await one.jam.send('2', 'no')
  await one.jam.send('2', 'after')
  await settle()
  await refuse(one, published(one)[0], 'friends', 'not friends with the receiver', 0x87)
  assert.deepEqual(one.heard.update.at(-1).reason, { ...NOT_FRIENDS, code: 0x87 })
  assert.equal(one.heard.update.at(-1).state, 'failed')
  assert.deepEqual(contents(published(one)), ['after'])
  assert.deepEqual(one.heard.error, [])
})

test('the device channel alone says it too, and so does the PUBACK alone', async () => {
  const one = await connected(new Browser())
  await one.jam.send('2', 'a')
  await one.jam.send('3', 'b')
  await settle()
  const [a, b] = published(one)
  await refuse(one, a, 'payload', 'payload is not valid json', 0)
  one.socket.puback(b.id, 0x87, 'no')
  await settle()
  assert.deepEqual(one.heard.update.map(({ state, reason: { category, message, code } }) => [state, category, message, code]), [['failed', 'payload', 'payload is not valid json', null], ['failed', 'server', 'no', 0x87]])
})

test('a refusal after a reconnect is that of the message, and one before it is forgotten', async () => {
  const one = await connected(new Browser())
  await one.jam.send('2', 'a')
  await settle()
  const [{ id }] = published(one)
  one.socket.refuse(clientId, { category: 'friends', message: 'stale', messageId: id })
  one.socket.drop()
  await one.tab.browser.advance(1000)
  await reconnected(one, { present: true })
  const [again] = published(one)
  one.socket.puback(again.id)
  await settle()
  assert.deepEqual(await states(one), [['a', 'sent']])
  await one.jam.send('2', 'b')
  await settle()
  published(one)
  one.socket.drop()
  await one.tab.browser.advance(2000)
  await reconnected(one, { present: true })
  await refuse(one, published(one)[0], 'friends', 'not friends with the receiver', 0x87)
  assert.deepEqual(await states(one), [['a', 'sent'], ['b', 'failed']])
})

test('packet ids are used again, and a refusal is never that of the message before', async () => {
  const one = await connected(new Browser(), {}, { receiveMaximum: 1 })
  const ids = new Map()
  for (let round = 0; round < 40; round++) {
    const { id } = await one.jam.send('2', `${round}`)
    await settle()
    const [packet] = published(one)
    ids.set(packet.id, id)
    one.socket.puback(packet.id)
    one.socket.refuse(clientId, { category: 'friends', message: 'late', messageId: packet.id })
    one.socket.puback(packet.id)
    await settle()
  }
  assert.ok((await states(one)).every(([, state]) => state === 'sent'))
  assert.equal(one.heard.error.length, 40)
})

test('a message of a tab that died before it could tell of it goes out within half a minute', async () => {
  const browser = new Browser()
  const one = await connected(browser)
  one.socket.answersPings = true
  const other = page(browser)
  await other.jam.start()
  for (const channel of browser.channels) if (channel.tab === other.tab) channel.postMessage = () => {}
  await other.jam.send('2', 'last words')
  other.tab.kill()
  await browser.advance(31_000)
  assert.deepEqual(contents(published(one)), ['last words'])
})

test('packet ids begin anew after 65,535, and pass over one that is still on its way', async () => {
  let order = 0
  const store = { claim: async (order, friend) => ({ id: `${order}`, payload: '{}', friend, order, state: 'queued' }), change: async () => null, outbox: async () => [] }
  const outbox = new Outbox(store, new Browser().tab(), () => {}, assert.fail)
  let last
  outbox.connected({ send: (bytes) => { last = bytes[12] << 8 | bytes[13] }, window: 16, maximumPacketSize: 1000, sessionPresent: false })
  const next = async (friend) => {
    outbox.add(friend, ++order)
    await Promise.resolve()
    await Promise.resolve()
    return last
  }
  assert.equal(await next('2'), 1)
  for (let id = 2; id <= 65_535; id++) {
    assert.equal(await next('3'), id)
    await outbox.acknowledged({ id, code: 0, properties: {} })
  }
  assert.equal(await next('3'), 2)
})

test('acknowledgements of what is not on its way change nothing', async () => {
  const one = await connected(new Browser())
  await one.jam.send('2', 'a')
  await settle()
  const [{ id }] = published(one)
  one.socket.puback(id + 1)
  one.socket.puback(65_535, 0x87)
  one.socket.refuse(clientId, { category: 'friends', message: 'x', messageId: id + 1 })
  await settle()
  assert.deepEqual(await states(one), [['a', 'queued']])
})

for (const [category, message, code] of [['quota', 'the receiver\'s inbox is full', 0x97], ['mailbox', 'the server cannot keep messages at the moment', 0x83], ['rate', 'sending too fast', 0x97], ['friends', 'fatal database error', 0x83], ['notification_token', 'fatal database error', 0x83]]) {
  test(`${category}, ${message}: it is tried again, later each time, and in the friend's order`, async () => {
    const one = await connected(new Browser())
    one.socket.answersPings = true
    one.tab.chance = 1 - 1e-9
    for (const content of ['a', 'b']) await one.jam.send('2', content)
    await one.jam.send('3', 'other')
    await settle()
    const [first, other] = published(one)
    one.socket.puback(other.id)
    await refuse(one, first, category, message, code)
    assert.deepEqual(one.heard.update.at(-1).state, 'queued')
    assert.equal(one.heard.update.at(-1).reason.category, category)
    for (const wait of [1000, 2000, 4000, 8000]) {
      await one.tab.browser.advance(wait - 100)
      assert.deepEqual(published(one), [], 'too early, or out of its order')
      await one.tab.browser.advance(100)
      const packets = published(one)
      assert.deepEqual(contents(packets), ['a'])
      await refuse(one, packets[0], category, message, code)
    }
    await one.tab.browser.advance(16_000)
    one.socket.puback(published(one)[0].id)
    await settle()
    assert.equal(one.heard.update.at(-1).reason, null)
    one.socket.puback(published(one)[0].id)
    await settle()
    assert.deepEqual(await states(one), [['a', 'sent'], ['b', 'sent']])
  })
}

test('retry() makes the next try now, and queues again what has failed; nothing else', async () => {
  const one = await connected(new Browser())
  const { id } = await one.jam.send('2', 'a')
  await settle()
  await refuse(one, published(one)[0], 'quota', 'full', 0x97)
  assert.equal(await one.jam.retry(id), true)
  await settle()
  await refuse(one, published(one)[0], 'friends', 'not friends with the receiver', 0x87)
  assert.deepEqual(await states(one), [['a', 'failed']])
  assert.equal(await one.jam.retry(id), true)
  await settle()
  const [packet] = published(one)
  assert.deepEqual([packet.payload.id, packet.payload.content], [id, 'a'])
  one.socket.puback(packet.id)
  await settle()
  assert.equal(await one.jam.retry(id), false)
  assert.equal(await one.jam.retry('unknown'), false)
  assert.deepEqual(published(one), [])
})

test('cancel() takes back what cannot have reached the server, and nothing else', async () => {
  const one = await connected(new Browser(), {}, { receiveMaximum: 1 })
  const sent = []
  for (const content of ['a', 'b', 'c']) sent.push(await one.jam.send('2', content))
  await settle()
  assert.equal(await one.jam.cancel(sent[0].id), false, 'it is on its way')
  assert.equal(await one.jam.cancel(sent[1].id), true)
  assert.equal(await one.jam.cancel(sent[1].id), false)
  await refuse(one, published(one)[0], 'friends', 'x', 0x87)
  assert.equal(await one.jam.cancel(sent[0].id), true, 'it was refused')
  const packets = published(one)
  assert.deepEqual(contents(packets), ['c'])
  one.socket.puback(packets[0].id)
  await settle()
  assert.equal(await one.jam.cancel(sent[2].id), false)
  assert.deepEqual(await states(one), [['c', 'sent']])
  assert.deepEqual(one.heard.update.filter(({ state }) => state === 'cancelled').map(({ content }) => content), ['b', 'a'])
})

test('what may have reached the server before a reload is not cancelled either', async () => {
  const browser = new Browser()
  const one = await connected(browser)
  const { id } = await one.jam.send('2', 'a')
  await settle()
  one.tab.kill()
  const next = await started(browser)
  assert.equal(await next.jam.cancel(id), false)
})

test('a store that breaks when the PUBACK comes: the message goes again under its id', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  const { id } = await one.jam.send('2', 'a')
  await settle()
  faults.full = () => true
  one.socket.puback(published(one)[0].id)
  await settle()
  assert.deepEqual(one.heard.error.map(({ category }) => category), ['store'])
  faults.full = () => false
  await one.tab.browser.advance(1000)
  const [again] = published(one)
  assert.equal(again.payload.id, id)
  one.socket.puback(again.id)
  await settle()
  assert.deepEqual(await states(one), [['a', 'sent']])
})

test('a picture goes as an array of byte values, and is a Blob here', async () => {
  const one = await connected(new Browser())
  const bytes = Uint8Array.of(0xFF, 0xD8, 0xFF, 0, 255)
  for (const content of [bytes, new Blob([bytes]), [...bytes]]) {
    const sent = await one.jam.send('2', content)
    await settle()
    const [packet] = published(one)
    assert.deepEqual(packet.payload.content, [...bytes])
    assert.deepEqual([sent.kind, sent.content.type, sent.content.size], ['picture', 'image/jpeg', 5])
    one.socket.puback(packet.id)
    await settle()
  }
})

test('messages are queued in the order of the calls, also when an earlier one takes longer to be encoded', async () => {
  const encode = async (payload) => {
    for (let turns = payload.content === 'slow' ? 50 : 0; turns; turns--) await new Promise(setImmediate)
    if (payload.content === 'bad') throw new Error('no key')
    return payload
  }
  const one = await connected(new Browser(), { encode })
  const calls = [one.jam.send('2', new Blob([Uint8Array.of(0xFF, 0xD8, 0xFF)])), one.jam.send('2', 'slow'), one.jam.send('2', 'bad'), one.jam.send('2', 'fast'), one.jam.send('3', 'other')]
  const results = await Promise.allSettled(calls)
  assert.deepEqual(results.map(({ status }) => status), ['fulfilled', 'fulfilled', 'rejected', 'fulfilled', 'fulfilled'])
  assert.deepEqual((await one.jam.history('2')).map(({ kind, content }) => kind === 'picture' ? kind : content), ['picture', 'slow', 'fast'])
  assert.ok(results[4].value.order < results[1].value.order, 'another friend does not wait')
})

test('encode is called once for a message, and cannot change from and id', async () => {
  let calls = 0
  const encode = async ({ content, ...payload }, friend) => ({ ...payload, from: 'x', id: 'y', content: { sealed: content, for: friend, call: ++calls } })
  const one = await connected(new Browser(), { encode })
  const { id, content } = await one.jam.send('2', 'a')
  assert.equal(content, 'a')
  await settle()
  const [first] = published(one)
  assert.deepEqual([first.payload.from, first.payload.id, first.payload.content], ['1', id, { sealed: 'a', for: '2', call: 1 }])
  one.socket.drop()
  await one.tab.browser.advance(1000)
  await reconnected(one)
  assert.deepEqual(published(one)[0].payload, first.payload)
  const failing = await connected(new Browser(), { encode: () => { throw new Error('no key') } })
  await assert.rejects(failing.jam.send('2', 'a'), /no key/)
})

test('what was queued with an id before is not queued again, whatever has become of it', async () => {
  const browser = new Browser()
  const one = await connected(browser)
  const [first, second] = await Promise.all([one.jam.send('2', 'a', { id: 'mine' }), one.jam.send('2', 'a', { id: 'mine' })])
  assert.deepEqual([first.id, second.order], ['mine', first.order])
  await settle()
  one.socket.puback(published(one)[0].id)
  await settle()
  await one.jam.stop()
  const again = await connected(browser)
  assert.equal((await again.jam.send('2', 'a', { id: 'mine' })).state, 'sent')
  await settle()
  assert.deepEqual([await states(again), published(again), again.heard.message.length], [[['a', 'sent']], [], 0])
})

test('a message to oneself is one message', async () => {
  const one = await connected(new Browser())
  const { id } = await one.jam.send('1', 'note')
  await settle()
  const [packet] = published(one)
  one.socket.publish('/1/inbox', packet.payload, { id: 4, from: '1' })
  one.socket.puback(packet.id)
  one.socket.publish('/1/receipts', { type: 'receipt', status: 'delivered', to: '1', id }, { id: 5 })
  await settle()
  assert.deepEqual(one.socket.take('puback').map(({ id }) => id).sort(), [4, 5])
  assert.deepEqual(await states(one, '1'), [['note', 'delivered']])
  assert.equal(one.jam.unread.size, 0)
})

test('receipts of nonsense, of others\' messages and for another receiver change nothing and are acknowledged', async () => {
  const one = await connected(new Browser())
  const { id } = await one.jam.send('2', 'a')
  await settle()
  const receipt = { type: 'receipt', status: 'delivered', to: '2', id }
  const all = ['x', {}, { ...receipt, status: 'read' }, { ...receipt, to: '3' }, { ...receipt, id: 'other' }, { ...receipt, id: null }, { ...receipt, id: {} }]
  for (const [at, payload] of all.entries()) one.socket.publish('/1/receipts', payload, { id: at + 1 })
  await settle()
  assert.equal(one.socket.take('puback').length, all.length)
  assert.deepEqual(await states(one), [['a', 'queued']])
})

test('a commit that is told late counts: send() resolves, and the message goes once', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  one.socket.answersPings = true
  faults.held = true
  const sending = one.jam.send('2', 'slow')
  await one.tab.browser.advance(40_000)
  faults.release()
  const { id } = await sending
  await one.tab.browser.advance(70_000)
  const packets = published(one)
  assert.deepEqual(packets.map(({ payload }) => payload.id), [id])
  assert.deepEqual(one.heard.message.map(({ content }) => content), ['slow'])
})

test('encode that has no answer in 30 s: send() rejects, and the next message goes', async () => {
  const one = await connected(new Browser(), { encode: (payload) => payload.content === 'never' ? new Promise(() => {}) : payload })
  one.socket.answersPings = true
  const rejected = assert.rejects(one.jam.send('2', 'never'), { name: 'TimeoutError' })
  const next = one.jam.send('2', 'next')
  await one.tab.browser.advance(29_000)
  assert.deepEqual(published(one), [])
  await one.tab.browser.advance(1100)
  await rejected
  await next
  await settle()
  assert.deepEqual(contents(published(one)), ['next'])
})

test('retry() does not pass the bound of the outbox either', async () => {
  const one = await connected(new Browser({ indexedDB: null }), {}, { receiveMaximum: 1 })
  const { id } = await one.jam.send('2', 'refused')
  await settle()
  await refuse(one, published(one)[0], 'friends', 'no', 0x87)
  for (let sent = 0; sent < 1000; sent++) await one.jam.send('3', 'x')
  await assert.rejects(one.jam.retry(id), /outbox is full/)
  assert.deepEqual(await states(one), [['refused', 'failed']])
})

test('the outbox has a bound, and says when it is full', async () => {
  const one = await started(new Browser({ indexedDB: null }))
  for (let sent = 0; sent < 1000; sent++) await one.jam.send('2', 'x')
  await assert.rejects(one.jam.send('2', 'x'), /outbox is full/)
})
