// What is kept: the same in IndexedDB and in memory, within its bounds.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { IDBFactory } from 'fake-indexeddb'
import { openEntries } from '../../crates/server/web/jam/entries.js'
import { MAX_BYTES, MAX_MESSAGES, MAX_OUTBOX_BYTES, openStore, Store, TOLD_AT_ONCE } from '../../crates/server/web/jam/store.js'
import { Browser, settle } from './browser.mjs'
import { Faults } from './faults.mjs'

const arrival = (id, more) => ({ id, friend: '2', from: '2', kind: 'text', content: `content of ${id}`, type: 0, timestamp: 0, dup: false, ...more })
const open = (browser, options = {}) => openStore({ user: '1', ...options }, browser.tab())

for (const [where, options] of [['IndexedDB', {}], ['memory', { store: null }]]) {
  test(`${where}: pages of a conversation, newest first asked for, oldest first given`, async () => {
    const store = await open(new Browser(), options)
    await store.receive(Array.from({ length: 25 }, (_, at) => arrival(`${at}`)))
    await store.receive([arrival('other', { friend: '22', from: '22' })])
    const pages = []
    for (let before; ;) {
      const page = await store.history('2', before, 10)
      if (!page.length) break
      pages.push(page.map(({ id }) => Number(id)))
      before = page[0].order
    }
    assert.deepEqual(pages, [[15, 16, 17, 18, 19, 20, 21, 22, 23, 24], [5, 6, 7, 8, 9, 10, 11, 12, 13, 14], [0, 1, 2, 3, 4]])
  })

  test(`${where}: all of a transaction or nothing`, async () => {
    const store = await open(new Browser(), options)
    await assert.rejects(store.receive([arrival('a'), null]))
    assert.deepEqual(await store.history('2', undefined, 10), [])
    assert.deepEqual((await store.receive([arrival('a')])).length, 1)
  })

  test(`${where}: users share nothing, whatever their ids and their friends' look like`, async () => {
    const browser = new Browser()
    const users = ['1', '11', '1,message', '__proto__', 'é']
    const stores = []
    for (const user of users) stores.push(await open(browser, { ...options, user }))
    for (const [at, store] of stores.entries()) await store.receive([arrival(`of ${users[at]}`, { friend: 'constructor', from: 'constructor' })])
    await stores[0].clear()
    for (const [at, store] of stores.entries()) assert.deepEqual((await store.history('constructor', undefined, 10)).map(({ id }) => id), at ? [`of ${users[at]}`] : [])
  })

  test(`${where}: conversations by their newest message, with marks`, async () => {
    const store = await open(new Browser(), options)
    await store.receive([arrival('a'), arrival('b', { friend: '3', from: '3' }), arrival('c')])
    await store.read('2')
    await store.receive([arrival('d')])
    const all = await store.conversations()
    assert.deepEqual(all.map(({ friend, unread, last }) => [friend, unread, last.id]), [['2', 1, 'd'], ['3', 1, 'b']])
    assert.equal(all[0].mark, (await store.history('2', undefined, 2))[0].order)
  })

  test(`${where}: the outbox has a bound in bytes of what goes out; what leaves it makes room`, async () => {
    const store = await open(new Browser(), options)
    const payload = 'x'.repeat(MAX_OUTBOX_BYTES / 5) // two of them fit, of two bytes a character
    const queue = (id) => store.queue({ friend: '2', id, payload, kind: 'text', content: 'x', type: 0, timestamp: 0 })
    const refused = (promise) => assert.rejects(promise, /outbox is full/)
    await queue('a')
    await queue('b')
    await refused(queue('c'))
    assert.equal((await store.cancel('b')).state, 'cancelled')
    await queue('c')
    await refused(queue('d'))
    await store.change('a', (row) => ({ ...row, state: 'failed' }))
    await queue('d')
    await refused(store.change('a', (row) => ({ ...row, state: 'queued' })))
    for (const id of ['c', 'd']) await store.change(id, (row) => ({ ...row, state: 'sent' }))
    await store.change('a', (row) => ({ ...row, state: 'queued' }))
    assert.equal((await store.outbox()).length, 1)
  })

  test(`${where}: a conversation keeps at most ${MAX_BYTES} bytes; a hostile friend drives out nobody else's`, async () => {
    const store = await open(new Browser(), options)
    await store.receive([arrival('old', { friend: '3', from: '3' })])
    const own = await store.queue({ friend: '2', id: 'own', payload: 'x', kind: 'text', content: 'x', type: 0, timestamp: 0 })
    const huge = 4 * 1024 * 1024
    for (let sent = 0; sent < 40; sent++) await store.receive([arrival(`${sent}`, { kind: 'picture', content: new Uint8Array(huge) })])
    const left = await store.history('2', undefined, 1000)
    assert.ok(left.reduce((sum, { bytes }) => sum + bytes, 0) <= MAX_BYTES)
    assert.ok(left.length >= 10)
    assert.equal(left.at(-1).id, '39')
    assert.equal(left[0].order, own.order, 'what is still to be sent stays')
    assert.equal((await store.history('3', undefined, 10)).length, 1)
    assert.ok((await store.conversations()).find(({ friend }) => friend === '2').unread <= left.length)
    assert.equal((await store.receive([arrival('39')]))[0], null, 'repeats of what is there are known')
  })
}

test(`a conversation keeps at most ${MAX_MESSAGES} messages`, async () => {
  const store = await open(new Browser(), { store: null })
  for (let sent = 0; sent < MAX_MESSAGES + 50; sent += 2000) await store.receive(Array.from({ length: 2000 }, (_, at) => arrival(`${sent + at}`)))
  const left = await store.history('2', undefined, 20_000)
  assert.ok(left.length <= MAX_MESSAGES && left.length > 0.8 * MAX_MESSAGES, `${left.length}`)
  assert.equal(left.at(-1).id, '11999')
})

test('what another tab has stored is mirrored within the same bounds, and leaves the outbox when it is sent', async () => {
  const browser = new Browser()
  const [one, other] = [await open(browser, { store: null }), await open(browser, { store: null })]
  for (let sent = 0; sent < 20; sent++) {
    const [{ row }] = await one.receive([arrival(`${sent}`, { content: new Uint8Array(8 << 20) })])
    await other.mirror(row)
  }
  assert.deepEqual((await other.history('2', undefined, 100)).map(({ id }) => id), (await one.history('2', undefined, 100)).map(({ id }) => id))
  const row = await one.queue({ friend: '2', id: 'own', payload: 'x', kind: 'text', content: 'x', type: 0, timestamp: 0 })
  await other.mirror(row)
  assert.equal((await other.outbox()).length, 1)
  await other.mirror(await one.change('own', (own) => ({ ...own, state: 'sent' })))
  assert.equal((await other.outbox()).length, 0)
})

test('numbers go on when the browser has removed everything', async () => {
  const faults = new Faults()
  const store = await open(new Browser({ indexedDB: faults.factory() }))
  await store.begin()
  const before = await store.receive(['a', 'b', 'c'].map((id) => arrival(id)))
  for (const { row } of before) assert.equal(store.isNews(row.order), true)
  await faults.evict()
  const [{ row }] = await store.receive([arrival('d')])
  assert.equal(row.order, 4)
  assert.equal(store.isNews(row.order), true)
  assert.deepEqual((await store.history('2', undefined, 10)).map(({ id }) => id), ['d'])
})

test('of thousands of messages some of which were never told, little is remembered, and none is news twice', async () => {
  const store = await open(new Browser())
  await store.begin()
  for (let order = 2; order < 10_000; order += 2) assert.equal(store.isNews(order), true)
  for (let order = 2; order < 10_000; order += 2) assert.equal(store.isNews(order), false)
  assert.equal(store.isNews(1), false, 'given up')
})

/** What counts how many messages a transaction holds at most. */
async function counting (browser) {
  const entries = await openEntries('jam', browser.tab())
  const counted = { most: 0, persistent: true, close: () => entries.close() }
  counted.transact = (kind, work) => entries.transact(kind, (t) => {
    let held = 0
    return work({
      ...t,
      list: async (prefix, page) => {
        const found = await t.list(prefix, page)
        if (prefix[1] === 'message') held = Math.min(held, TOLD_AT_ONCE) + found.length
        counted.most = Math.max(counted.most, held)
        return found
      }
    })
  })
  return counted
}

test('however much was stored and not told, it is read in parts, and told once in its order', async () => {
  const browser = new Browser()
  const [entries, other] = [await counting(browser), await open(browser)]
  const store = new Store('1', entries, browser.tab())
  await store.begin()
  const friends = Array.from({ length: 30 }, (_, at) => `${at + 2}`)
  const write = async (from, to) => {
    for (let number = from; number < to; number++) {
      const friend = friends[number % 7 ? 0 : number % 30]
      await other.receive([arrival(`${number}`, { friend, from: friend })])
    }
  }
  await write(0, 5 * TOLD_AT_ONCE)
  const told = []
  const tell = ({ row, fresh, unread }) => {
    assert.ok(fresh && unread > 0)
    if (store.isNews(row.order)) told.push(Number(row.id))
    if (told.length === TOLD_AT_ONCE) meanwhile = write(5 * TOLD_AT_ONCE, 5 * TOLD_AT_ONCE + 10)
  }
  let meanwhile
  await store.catchUp(tell)
  await meanwhile
  await store.catchUp(tell)
  assert.deepEqual(told, [...Array(5 * TOLD_AT_ONCE + 10).keys()])
  assert.ok(entries.most > TOLD_AT_ONCE && entries.most <= 2 * TOLD_AT_ONCE, `${entries.most} at once`)
})

test('a database that opens too late is closed, and stands in nobody\'s way', async () => {
  const request = {}
  const browser = new Browser({ indexedDB: { open: () => request } })
  const failed = assert.rejects(open(browser), { name: 'TimeoutError' })
  await settle()
  await browser.advance(61_000)
  await failed
  let closed = 0
  request.result = { close: () => closed++ }
  request.onsuccess()
  await settle()
  assert.equal(closed, 1)
})

test('a database that a later version has made is not replaced by memory', async () => {
  const indexedDB = new IDBFactory()
  await new Promise((resolve) => {
    const request = indexedDB.open('jam', 9)
    request.onsuccess = () => { request.result.close(); resolve() }
  })
  await assert.rejects(open(new Browser({ indexedDB })), { name: 'VersionError' })
})

test('an IndexedDB that never opens is given up after a minute', async () => {
  const browser = new Browser({ indexedDB: { open: () => ({}) } })
  const opening = open(browser)
  const failed = assert.rejects(opening, { name: 'TimeoutError' })
  await settle()
  await browser.advance(61_000)
  await failed
})

test('an IndexedDB that is denied is memory; one that fails is told, for memory would lose what comes', async () => {
  const failing = (message, name) => ({ open: () => { const request = {}; setImmediate(() => { request.error = new DOMException(message, name); request.onerror() }); return request } })
  for (const denied of [['', 'SecurityError'], ['', 'InvalidStateError'], ['The user denied permission to access the database.', 'UnknownError']]) {
    assert.equal((await open(new Browser({ indexedDB: failing(...denied) }))).persistent, false)
  }
  for (const broken of [['Internal error opening backing store', 'UnknownError'], ['', 'QuotaExceededError'], ['', 'AbortError']]) {
    await assert.rejects(open(new Browser({ indexedDB: failing(...broken) })), { name: broken[1] })
  }
  assert.equal((await open(new Browser({ indexedDB: undefined }))).persistent, true)
})
