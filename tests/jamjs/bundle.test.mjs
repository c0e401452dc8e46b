// The two files that are checked in are what the sources make, small enough, and clean by TypeScript and Biome; and so are the
// sources of the chat page.

import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { Browser, settle } from './browser.mjs'
import { bundle, web } from './bundle.mjs'
import { clientId, message, page } from './page.mjs'

/** What a user, two tabs and a friend do, with one file or the other: what is stored, told and heard. */
async function story (Class) {
  const browser = new Browser()
  const tabs = [page(browser, { Class, decode: ({ content, ...more }) => ({ ...more, content }) }), page(browser, { Class })]
  for (const { tab, jam } of tabs) {
    let next = 0
    tab.randomBytes = (count) => new Uint8Array(count).fill(++next)
    await jam.start()
    await settle()
  }
  const [{ jam, tab, heard }, follower] = tabs
  tab.socket.accept({ receiveMaximum: 5, maximumPacketSize: 1000, keepAlive: 60 })
  await settle()
  tab.socket.publish('/1/friends', { friends: [{ user: '2', name: 'ben', blocked: false, publicKey: 'key' }], part: 1, parts: 1, timestamp: 't' })
  tab.socket.publish('/1/presence', { user: '2', online: true })
  for (const [at, payload] of [message('a'), { content: 'no id' }, { id: 'p', content: [0xFF, 0xD8, 0xFF, 1] }, { id: 'o', content: { x: 1 }, type: 'y' }].entries()) tab.socket.publish('/1/inbox', payload, { id: at + 1, from: '2' })
  await settle()
  const sent = []
  for (const content of ['sent', 'refused', 'x'.repeat(2000), 'delivered', 'waits']) sent.push(await follower.jam.send(content === 'waits' ? '3' : '2', content))
  await settle()
  for (let [packet] = tab.socket.take('publish'); packet; [packet] = tab.socket.take('publish')) {
    if (packet.payload.content === 'refused') tab.socket.refuse(clientId, { category: 'friends', message: 'no', messageId: packet.id })
    if (packet.payload.content !== 'waits') tab.socket.puback(packet.id)
    await settle()
  }
  tab.socket.publish('/1/receipts', { status: 'delivered', to: '2', id: sent[3].id }, { id: 9 })
  await settle()
  await follower.jam.read('2')
  tab.socket.refuse(clientId, { handler: 'authenticate', category: 'logout', message: 'elsewhere', messageId: null })
  tab.socket.disconnect(0x8E)
  await settle()
  const database = await new Promise((done) => { browser.indexedDB.open('jam').onsuccess = ({ target }) => done(target.result) })
  const store = database.transaction('entries').objectStore('entries')
  const [keys, values] = await Promise.all(['getAllKeys', 'getAll'].map((all) => new Promise((done) => { store[all]().onsuccess = ({ target }) => done(target.result) })))
  const public_ = { history: await jam.history('2'), conversations: await jam.conversations(), friends: jam.friends, unread: [...jam.unread], state: jam.state }
  for (const one of tabs) await one.jam.stop()
  return { keys, values, told: browser.told.filter((told) => !('tab' in told)), heard, follower: follower.heard, public_ }
}

test('jam.js stores, tells and shows what its sources do, under the same names', async () => {
  const [made, source] = [await story((await import('../../crates/server/web/jam.js')).Jam), await story((await import('../../crates/server/web/jam/jam.js')).Jam)]
  assert.ok(source.values.length > 15 && source.told.length > 20 && source.heard.update.length > 3)
  assert.deepEqual(made, source)
})

const here = dirname(fileURLToPath(import.meta.url))
const MAX_BYTES = 12_000

test('jam.js and jam.d.ts are what their sources make', async () => {
  for (const [name, text] of Object.entries(await bundle())) {
    assert.ok(text === readFileSync(join(web, name), 'utf8'), `${name} is stale: npm run bundle --prefix tests/jamjs`)
  }
})

test('jam.js has at most 12 KB after gzip -9, and imports nothing', () => {
  const script = readFileSync(join(web, 'jam.js'))
  const { length } = execFileSync('gzip', ['-9', '-c'], { input: script }) // of Node.js's own there are several, which differ
  assert.ok(length <= MAX_BYTES, `${length} bytes`)
  assert.doesNotMatch(script.toString(), /\bimport\b|\beval\b|innerHTML|new Function/)
})

test('TypeScript finds nothing in the chat page', () => {
  const typescript = createRequire(import.meta.url).resolve('typescript/package.json')
  execFileSync(process.execPath, [join(dirname(typescript), 'bin/tsc'), '-p', join(here, 'chat.json')], { stdio: 'pipe', encoding: 'utf8' })
})

test('Biome finds nothing', () => {
  const biome = createRequire(import.meta.url).resolve('@biomejs/biome/bin/biome')
  execFileSync(process.execPath, [biome, 'lint', `--config-path=${here}`, '--error-on-warnings', join(web, 'jam'), join(web, 'chat'), here, join(here, '../browser')], { cwd: here, stdio: 'pipe', encoding: 'utf8' })
})
