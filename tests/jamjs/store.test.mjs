// What is kept: the same in IndexedDB and in memory, within its bounds.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { IDBFactory } from 'fake-indexeddb'
import { MAX_BYTES, MAX_MESSAGES, openStore } from '../../crates/server/web/jam/store.js'
import { Browser, settle } from './browser.mjs'

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
