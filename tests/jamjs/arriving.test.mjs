// What arrives: acknowledged when it is kept and never before, shown once, whatever a friend has written.

import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Browser, settle } from './browser.mjs'
import { Faults } from './faults.mjs'
import { clientId, connected, message, reconnected, state } from './page.mjs'

const arrive = (one, payload, options) => one.socket.publish('/1/inbox', payload, { id: 1, from: '2', ...options })
const acknowledged = (one) => one.socket.take('puback').map(({ id }) => id)
const shown = async (one, friend = '2') => (await one.jam.history(friend)).map(({ content }) => content)

test('a message is acknowledged when its transaction is complete, and not before', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  faults.held = true
  arrive(one, message('a'))
  await one.tab.browser.advance(5000)
  assert.deepEqual(acknowledged(one), [])
  assert.deepEqual(one.heard.message, [])
  faults.release()
  await settle()
  assert.deepEqual(acknowledged(one), [1])
  assert.deepEqual(one.heard.message, [{
    order: 1, id: 'a', friend: '2', from: '2', own: false, kind: 'text', content: 'content of a', type: 0,
    timestamp: Date.parse('2026-01-31T11:59:00Z'), arrived: one.tab.now() - 5000, state: 'received', reason: null
  }])
})

test('a tab killed between arrival and commit has acknowledged nothing; the message comes again and is shown once', async () => {
  const faults = new Faults()
  const browser = new Browser({ indexedDB: faults.factory() })
  const one = await connected(browser)
  faults.full = () => true
  arrive(one, message('a'))
  one.tab.kill()
  await settle()
  assert.deepEqual(acknowledged(one), [])
  faults.full = () => false
  const next = await connected(browser)
  assert.deepEqual(await shown(next), [])
  arrive(next, message('a'), { dup: true })
  await settle()
  assert.deepEqual(acknowledged(next), [1])
  assert.deepEqual(await shown(next), ['content of a'])
})

test('a tab killed between commit and PUBACK: the message comes again, is acknowledged, and is shown once', async () => {
  const faults = new Faults()
  const browser = new Browser({ indexedDB: faults.factory() })
  const one = await connected(browser)
  faults.held = true
  arrive(one, message('a'))
  await settle()
  one.tab.kill()
  faults.release()
  const next = await connected(browser)
  assert.deepEqual(await shown(next), ['content of a'])
  arrive(next, message('a'), { dup: true })
  await settle()
  assert.deepEqual(acknowledged(next), [1])
  assert.deepEqual(await shown(next), ['content of a'])
  assert.deepEqual(next.heard.message, [])
})

test('a connection that breaks before the commit: no PUBACK goes out on the next one but for what came on it', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  faults.held = true
  arrive(one, message('a'), { id: 7 })
  await settle()
  one.socket.drop()
  await one.tab.browser.advance(1000)
  await reconnected(one)
  faults.release()
  await settle()
  assert.deepEqual(acknowledged(one), [])
  arrive(one, message('a'), { id: 9, dup: true })
  await settle()
  assert.deepEqual(acknowledged(one), [9])
  assert.equal(one.heard.message.length, 1)
})

test('repeats are known by sender and id, also without DUP; the same id from another friend is another message', async () => {
  const one = await connected(new Browser())
  arrive(one, message('a'), { id: 1 })
  arrive(one, message('a', 'other words'), { id: 2 })
  arrive(one, message('a', 'of three', '3'), { id: 3, from: '3' })
  await settle()
  assert.deepEqual(acknowledged(one), [1, 2, 3])
  assert.deepEqual(one.heard.message.map(({ content }) => content), ['content of a', 'of three'])
})

test('without an id: shown as often as it comes without DUP; with DUP, only if it was not here', async () => {
  const one = await connected(new Browser())
  const payload = { from: '2', content: 'hi' }
  for (const [id, dup, content] of [[1, false, 'hi'], [2, false, 'hi'], [3, true, 'hi'], [4, true, 'its first copy was lost'], [5, true, 'its first copy was lost']]) {
    arrive(one, { ...payload, content }, { id, dup })
  }
  await settle()
  assert.deepEqual(acknowledged(one), [1, 2, 3, 4, 5])
  assert.deepEqual(await shown(one), ['hi', 'hi', 'its first copy was lost'])
})

test('ids that identify nothing do not hide messages', async () => {
  const one = await connected(new Browser())
  for (const [number, id] of ['', 'x'.repeat(257), null, {}, [], true, undefined, 2 ** 60].flatMap((id) => [id, id]).entries()) arrive(one, { from: '2', id, content: `${number}` }, { id: number + 1 })
  arrive(one, { from: '2', id: 5, content: 'five' }, { id: 20 })
  arrive(one, { from: '2', id: 5, content: 'five' }, { id: 21 })
  await settle()
  assert.deepEqual(await shown(one), [...Array(16).keys()].map(String).concat('five'))
})

test('bytes split at any place of the stream make the same messages', async () => {
  for (const cut of [1, 2, 3, 7, 50]) {
    const one = await connected(new Browser())
    for (let id = 1; id <= 3; id++) one.socket.publish('/1/inbox', message(`${id}`, 'Grüße 😀'), { id, from: '2' }, cut)
    await settle()
    assert.deepEqual(acknowledged(one), [1, 2, 3])
    assert.deepEqual(await shown(one), ['Grüße 😀', 'Grüße 😀', 'Grüße 😀'])
  }
})

test('a message that cannot be stored is not acknowledged, the page is told, and it is tried again', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  one.socket.answersPings = true
  faults.full = () => true
  arrive(one, message('a'), { id: 1 })
  arrive(one, message('b'), { id: 2 })
  await one.tab.browser.advance(900)
  assert.deepEqual(acknowledged(one), [])
  assert.deepEqual(one.heard.error.map(({ category }) => category), ['store'])
  await one.tab.browser.advance(60_000)
  assert.deepEqual(acknowledged(one), [])
  assert.ok(one.heard.error.length < 10)
  faults.full = () => false
  await one.tab.browser.advance(61_000)
  assert.deepEqual(acknowledged(one), [1, 2])
  assert.deepEqual(await shown(one), ['content of a', 'content of b'])
})

test('one message that cannot be stored holds up the later ones of its friend and no other\'s', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  faults.full = (value) => value?.content === 'too much'
  arrive(one, message('a', 'too much'), { id: 1 })
  arrive(one, message('b', 'behind it'), { id: 2 })
  arrive(one, message('c', 'of three', '3'), { id: 3, from: '3' })
  one.socket.publish('/1/receipts', { type: 'receipt', status: 'delivered', to: '2', id: 'x' }, { id: 4 })
  await settle()
  arrive(one, message('d', 'behind it too'), { id: 5 })
  arrive(one, message('e', 'of three', '3'), { id: 6, from: '3' })
  await settle()
  assert.deepEqual(acknowledged(one).sort(), [3, 4, 6])
  faults.full = () => false
  await one.tab.browser.advance(2000)
  assert.deepEqual(acknowledged(one), [1, 2, 5])
  assert.deepEqual(await shown(one), ['too much', 'behind it', 'behind it too'])
})

test('what there is no room for holds up nothing that there is room for, of that friend neither, and comes later', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  one.socket.answersPings = true
  Object.assign(faults, { isQuota: true, full: (value) => value?.content?.length > 100 })
  const large = (name) => message(name, 'x'.repeat(101))
  for (let id = 1; id <= 15; id++) arrive(one, id === 1 ? large('picture') : message(`text ${id}`), { id })
  arrive(one, message('c', 'of three', '3'), { id: 16, from: '3' })
  await settle()
  assert.deepEqual(acknowledged(one).sort((a, b) => a - b), [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16])
  assert.deepEqual(one.heard.error.map(({ category }) => category), ['store'])
  arrive(one, message('after'), { id: 2 })
  await one.tab.browser.advance(5000)
  assert.deepEqual(acknowledged(one), [2])
  faults.full = () => false
  await one.tab.browser.advance(61_000)
  assert.deepEqual(acknowledged(one), [1])
  const all = (await one.jam.history('2', { limit: 100 })).map(({ id }) => id)
  assert.deepEqual([all.length, all.at(-2), all.at(-1)], [16, 'after', 'picture'])
})

test('for want of room nothing that is stored goes, what is written is refused, and what waits goes out later', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  one.socket.answersPings = true
  arrive(one, message('old'), { id: 1 })
  await settle()
  Object.assign(faults, { isQuota: true, full: () => true })
  for (let id = 2; id <= 5; id++) arrive(one, message(`${id}`), { id })
  await assert.rejects(one.jam.send('2', 'hello'), { name: 'QuotaExceededError' })
  await one.tab.browser.advance(120_000)
  assert.deepEqual(acknowledged(one), [1])
  assert.deepEqual(await shown(one), ['content of old'])
  faults.full = () => false
  await one.jam.send('2', 'hello')
  await one.tab.browser.advance(61_000)
  assert.deepEqual(acknowledged(one).sort(), [2, 3, 4, 5])
  assert.deepEqual(one.socket.take('publish').map(({ payload: { content } }) => content), ['hello'])
})

test('an IndexedDB that breaks, or is closed under its feet, is opened again', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  faults.broken = true
  arrive(one, message('a'), { id: 1 })
  await settle()
  assert.deepEqual(acknowledged(one), [])
  faults.broken = false
  faults.closeAll()
  await one.tab.browser.advance(2000)
  assert.deepEqual(acknowledged(one), [1])
})

test('an IndexedDB that is closed without a word is opened again', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  faults.databases.at(-1).close()
  arrive(one, message('a'), { id: 1 })
  await one.tab.browser.advance(2000)
  assert.deepEqual(acknowledged(one), [1])
})

test('a transaction that never comes to its commit is taken back after 30 s, and tried again', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  faults.stuck = true
  arrive(one, message('a'), { id: 1 })
  await settle()
  faults.stuck = false
  await one.tab.browser.advance(29_000)
  assert.deepEqual(one.heard.error, [])
  await one.tab.browser.advance(1500)
  assert.deepEqual(one.heard.error.map(({ category }) => category), ['store'])
  one.socket.pingresp()
  await one.tab.browser.advance(2000)
  assert.deepEqual(acknowledged(one), [1])
  assert.deepEqual(await shown(one), ['content of a'])
})

test('a commit that is told late counts: no error, one message, also of one without an id', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  one.socket.answersPings = true
  faults.held = true
  arrive(one, { from: '2', content: 'no id' }, { id: 1 })
  arrive(one, message('a'), { id: 2 })
  await one.tab.browser.advance(50_000)
  assert.deepEqual(acknowledged(one), [])
  faults.release()
  await one.tab.browser.advance(100_000)
  assert.deepEqual(acknowledged(one), [1, 2])
  assert.deepEqual(one.heard.error, [])
  assert.deepEqual(one.heard.message.map(({ content }) => content), ['no id', 'content of a'])
  assert.deepEqual(await shown(one), ['no id', 'content of a'])
})

test('of a commit that is never told the page hears after 90 s; when it was kept, the message is there once', async () => {
  const faults = new Faults()
  const one = await connected(new Browser({ indexedDB: faults.factory() }))
  one.socket.answersPings = true
  faults.held = true
  arrive(one, { from: '2', content: 'no id' }, { id: 1 })
  await one.tab.browser.advance(29_000)
  faults.held = false // the next ones are told
  await one.tab.browser.advance(60_000)
  assert.deepEqual(acknowledged(one), [])
  await one.tab.browser.advance(33_000)
  assert.deepEqual(one.heard.error.map(({ category }) => category), ['store'])
  assert.deepEqual(acknowledged(one), [1])
  assert.deepEqual(await shown(one), ['no id'])
  assert.deepEqual(one.heard.message.map(({ content }) => content), ['no id'])
})

test('IndexedDB denied: it works from memory, and says that it does', async () => {
  const one = await connected(new Browser({ indexedDB: null }))
  assert.equal(one.jam.persistent, false)
  arrive(one, message('a'))
  arrive(one, message('a'), { id: 2, dup: true })
  await settle()
  assert.deepEqual(acknowledged(one), [1, 2])
  assert.deepEqual(await shown(one), ['content of a'])
  const kept = await connected(new Browser())
  assert.equal(kept.jam.persistent, true)
})

test('a thousand waiting messages are shown in their order, each once, with the window that was asked for', async () => {
  const one = await connected(new Browser())
  for (let sent = 0; sent < 1000;) {
    for (let id = 1; id <= 16 && sent < 1000; id++) arrive(one, message(`m${sent++}`), { id })
    await settle()
    assert.ok(acknowledged(one).length > 0)
  }
  const all = await one.jam.history('2', { limit: 2000 })
  assert.deepEqual(all.map(({ id }) => id), [...Array(1000).keys()].map((number) => `m${number}`))
  assert.equal(one.jam.unread.get('2'), 1000)
})

const deep = (levels) => `{"from":"2","id":"deep","content":${'['.repeat(levels)}${']'.repeat(levels)}}`
const jpeg = [0xFF, 0xD8, 0xFF, 0xE0, 1, 2, 3]
const HOSTILE = [
  ['no JSON', 'hello', ['other', 'hello']],
  ['no object', '[1,2]', ['other', '[1,2]']],
  ['null', 'null', ['other', 'null']],
  ['nothing', '', ['other', '']],
  ['not UTF-8', Uint8Array.of(0x7B, 0xFF, 0x7D), ['other', '{\uFFFD}']],
  ['no content', { from: '2', a: 1 }, ['other', '{"from":"2","a":1}']],
  ['content null', { from: '2', content: null }, ['other', 'null']],
  ['a number', { from: '2', content: 5 }, ['other', '5']],
  ['an object', { from: '2', content: { toString: 1 } }, ['other', '{"toString":1}']],
  ['__proto__', '{"from":"2","__proto__":{"id":"x","content":"polluted"},"content":"real"}', ['text', 'real']],
  ['a toJSON of its own', '{"from":"2","content":{"toJSON":1}}', ['other', '{"toJSON":1}']],
  ['NUL and lone surrogates', '{"from":"2","content":"\\u0000\\ud800"}', ['text', '\0\ud800']],
  ['markup', { from: '2', content: '<img src=x onerror=alert(1)>' }, ['text', '<img src=x onerror=alert(1)>']],
  ['an empty array', { from: '2', content: [] }, ['other', '[]']],
  ['bytes that are no picture', { from: '2', content: [1, 2, 3] }, ['other', '[1,2,3]']],
  ['a picture with a byte too large', { from: '2', content: [...jpeg, 256] }, ['other', JSON.stringify([...jpeg, 256])]],
  ['a picture with half a byte', { from: '2', content: [...jpeg, 0.5] }, ['other', JSON.stringify([...jpeg, 0.5])]],
  ['RIFF that is too short', { from: '2', content: [0x52, 0x49, 0x46, 0x46] }, ['other', '[82,73,70,70]']],
  ['nested 200,000 deep', deep(200_000), ['other', null]],
  ['two megabytes of text', { from: '2', content: 'x'.repeat(2 << 20) }, ['text', 'x'.repeat(2 << 20)]],
  ['a type of two megabytes', { from: '2', content: 'x', type: 'y'.repeat(2 << 20) }, ['text', 'x']],
  ['a time that is none', { from: '2', content: 'x', timestamp: 'yesterday' }, ['text', 'x']],
  ['a time out of range', { from: '2', content: 'x', timestamp: 1e300 }, ['text', 'x']],
  ['a time that is an object', { from: '2', content: 'x', timestamp: {} }, ['text', 'x']],
  ['a number that is infinite', '{"from":"2","content":"x","id":1e999,"type":1e999,"timestamp":1e999}', ['text', 'x']]
]

test('whatever a friend writes is shown as what it is, and what comes after it arrives', async () => {
  const one = await connected(new Browser())
  for (const [what, payload, [kind, content]] of HOSTILE) {
    arrive(one, payload, { id: 1 })
    arrive(one, message(`after ${what}`, 'after'), { id: 2 })
    await settle()
    await settle()
    assert.deepEqual(acknowledged(one), [1, 2], what)
    const [hostile, after] = await one.jam.history('2', { limit: 2 })
    assert.equal(hostile.kind, kind, what)
    if (content !== null) assert.ok(hostile.content === content, what)
    assert.ok(Number.isFinite(hostile.timestamp), what)
    assert.equal(after.content, 'after', what)
  }
  assert.deepEqual(one.heard.error, [])
})

test('byte arrays that begin as pictures are Blobs of their type', async () => {
  const one = await connected(new Browser())
  const pictures = [['image/jpeg', jpeg], ['image/png', [0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 9]], ['image/gif', [0x47, 0x49, 0x46, 0x38, 0x39]], ['image/webp', [0x52, 0x49, 0x46, 0x46, 1, 2, 3, 4, 0x57, 0x45, 0x42, 0x50]]]
  for (const [at, [type, content]] of pictures.entries()) {
    arrive(one, { from: '2', content }, { id: at + 1 })
    await settle()
    const { kind, content: blob } = one.heard.message.at(-1)
    assert.deepEqual([kind, blob.type, [...new Uint8Array(await blob.arrayBuffer())]], ['picture', type, content])
  }
  const again = (await one.jam.history('2')).map(({ content }) => content.type)
  assert.deepEqual(again, pictures.map(([type]) => type))
})

test('the sender is who the server says, whatever the payload does', async () => {
  const one = await connected(new Browser())
  arrive(one, message('a', 'x', '3'), { from: '2' })
  arrive(one, { id: 'b', content: 'y' }, { id: 2, from: undefined })
  await settle()
  assert.deepEqual(one.heard.message.map(({ from, friend }) => [from, friend]), [['2', '2'], ['', '']])
})

test('a wrong clock, here or there, changes no order', async () => {
  const one = await connected(new Browser())
  const times = ['2031-01-01T00:00:00Z', '1999-01-01T00:00:00Z', '+275760-09-13T00:00:00.000Z']
  for (const [at, timestamp] of times.entries()) {
    one.tab.browser.wall -= 365 * 24 * 3600 * 1000
    arrive(one, { ...message(`${at}`), timestamp }, { id: at + 1 })
    await settle()
  }
  const all = await one.jam.history('2')
  assert.deepEqual(all.map(({ id, timestamp }) => [id, timestamp]), times.map((time, at) => [`${at}`, Date.parse(time)]))
})

test('decode: what it gives is stored; what it throws at, or does not answer in 10 s, is stored as it came', async () => {
  const decode = async ({ content, ...payload }) => {
    if (content === 'bad') throw new Error('no key')
    if (content === 'nonsense') return 5
    if (content === 'slow') await new Promise(() => {})
    return { ...payload, content: `decoded ${content}` }
  }
  const one = await connected(new Browser(), { decode })
  for (const [at, content] of ['good', 'bad', 'nonsense', 'slow', 'after'].entries()) arrive(one, message(`${at}`, content), { id: at + 1 })
  arrive(one, message('x', 'of three', '3'), { id: 6, from: '3' })
  await one.tab.browser.advance(9900)
  assert.deepEqual(acknowledged(one).sort(), [1, 2, 3, 6], 'what comes after the slow one waits, but no other friend')
  await one.tab.browser.advance(200)
  assert.deepEqual(acknowledged(one), [4, 5])
  assert.deepEqual(await shown(one), ['decoded good', 'bad', 'nonsense', 'slow', 'decoded after'])
})

test('a listener that throws harms nothing', async () => {
  const one = await connected(new Browser())
  const thrown = []
  process.setUncaughtExceptionCaptureCallback((error) => thrown.push(error))
  one.jam.on('message', () => { throw new Error('a bug of the page') })
  arrive(one, message('a'))
  arrive(one, message('b'), { id: 2 })
  await settle()
  process.setUncaughtExceptionCaptureCallback(null)
  assert.equal(thrown.length, 2)
  assert.deepEqual(acknowledged(one), [1, 2])
})

test('unread counts by friend, in the title and on the icon, until they are read; also after a reload', async () => {
  const browser = new Browser()
  const one = await connected(browser)
  for (let id = 1; id <= 3; id++) arrive(one, message(`${id}`), { id })
  arrive(one, message('x', 'x', '3'), { id: 4, from: '3' })
  await settle()
  assert.deepEqual([...one.jam.unread], [['2', 3], ['3', 1]])
  assert.equal(one.tab.document.title, '(4) Chat')
  assert.equal(one.tab.badges.at(-1), 4)
  await one.jam.read('2')
  assert.deepEqual(one.heard.unread.at(-1), { friend: '2', unread: 0 })
  assert.equal(one.tab.document.title, '(1) Chat')
  const [three, two] = await one.jam.conversations()
  assert.deepEqual([three.friend, three.unread, three.mark, two.unread, two.mark], ['3', 1, 0, 0, 3])
  await one.jam.stop()
  const again = await connected(browser)
  assert.deepEqual([...again.jam.unread], [['3', 1]])
  assert.equal(again.tab.document.title, '(1) Chat')
})

test('a notification only if the page wants them, only while it is hidden, one for each friend', async () => {
  const one = await connected(new Browser(), { notify: ({ from, content }) => ({ title: from, body: content }) })
  arrive(one, message('a'))
  await settle()
  one.tab.show(false)
  arrive(one, message('b'), { id: 2 })
  await settle()
  assert.deepEqual(one.tab.notified, [{ title: '2', body: 'content of b', tag: '2' }])
  const silent = await connected(new Browser())
  silent.tab.show(false)
  arrive(silent, message('a'))
  await settle()
  assert.deepEqual(silent.tab.notified, [])
})

test('friends come in parts, are kept, and are told as one list; nonsense in them harms nothing', async () => {
  const browser = new Browser()
  const one = await connected(browser)
  const tell = (payload) => one.socket.publish('/1/friends', payload)
  const friend = (user, more) => ({ user, name: `name ${user}`, blocked: false, publicKey: null, ...more })
  tell({ type: 'friends', friends: [friend('2')], part: 1, parts: 2 })
  await settle()
  assert.deepEqual(one.heard.friends, [])
  tell({ type: 'friends', friends: [friend('3', { blocked: true, publicKey: 'key' })], part: 2, parts: 2 })
  one.socket.publish('/1/presence', { type: 'presence', user: '2', online: true })
  await settle()
  const list = [{ ...friend('2'), online: false }, { ...friend('3', { blocked: true, publicKey: 'key' }), online: false }]
  assert.deepEqual(one.heard.friends, [{ friends: list }])
  assert.deepEqual(one.heard.presence, [{ user: '2', online: true }])
  assert.equal(one.jam.friends[0].online, true)
  for (const nonsense of ['x', {}, { friends: {} }, { friends: [null, 5, {}, { user: 5 }], part: 1, parts: 2 }, { friends: [], part: 3, parts: 3 }, { friends: [], part: 1, parts: 1e9 }]) tell(nonsense)
  await settle()
  assert.equal(one.heard.friends.length, 1)
  tell({ friends: [{ user: '4', name: null }], part: 1, parts: 1 })
  await settle()
  assert.deepEqual(one.jam.friends, [{ user: '4', name: '4', blocked: false, publicKey: null, online: false }])
  await one.jam.stop()
  const again = await connected(browser)
  assert.deepEqual(again.jam.friends.map(({ user }) => user), ['4'])
})

test('who is no friend any more keeps a name in the conversation, also when that became so in another browser', async () => {
  const browser = new Browser()
  const one = await connected(browser)
  const friend = (user, name) => ({ user, name, blocked: false, publicKey: null })
  const tell = (...friends) => one.socket.publish('/1/friends', { friends, part: 1, parts: 1, timestamp: 't' })
  const names = async ({ jam }) => Object.fromEntries((await jam.conversations()).map(({ friend, name }) => [friend, name]))
  tell(friend('2', 'ben'), friend('3', 'carla'), friend('4', 'dora'))
  for (const from of ['2', '3']) arrive(one, message(`of ${from}`, 'x', from), { id: Number(from), from })
  await settle()
  await one.jam.stop()
  const again = await connected(browser)
  again.socket.publish('/1/friends', { friends: [friend('3', 'carla')], part: 1, parts: 1, timestamp: 't' })
  await settle()
  assert.deepEqual(await names(again), { 2: 'ben', 3: undefined })
  arrive(again, message('later', 'x', '2'), { id: 9, from: '2' })
  again.socket.publish('/1/friends', { friends: [friend('3', 'carla')], part: 1, parts: 1, timestamp: 't2' })
  await settle()
  await again.jam.read('2')
  await again.jam.stop()
  const reloaded = await connected(browser)
  assert.deepEqual(await names(reloaded), { 2: 'ben', 3: undefined })
})

test('a lost connection knows nobody to be online', async () => {
  const one = await connected(new Browser())
  one.socket.publish('/1/presence', { type: 'presence', user: '2', online: true })
  one.socket.drop()
  await settle()
  assert.deepEqual(one.heard.presence, [{ user: '2', online: true }, { user: '2', online: false }])
})

test('an error on the device channel that is about no message is told', async () => {
  const one = await connected(new Browser())
  one.socket.refuse(clientId, { handler: 'authorizeSubscribe', category: '/1/inbox', message: 'not authorized', messageId: null })
  one.socket.refuse(clientId, { handler: { toString: 1 }, category: { toString: 1 }, message: [], messageId: { valueOf: 1 } })
  one.socket.publish(`/1/devices/${clientId}`, 'no JSON')
  await settle()
  assert.deepEqual(one.heard.error.map(({ category }) => category), ['/1/inbox', ''])
  assert.equal(state(one).state, 'connected')
})

test('messages on topics that it does not know are acknowledged and nothing else', async () => {
  const one = await connected(new Browser())
  one.socket.publish('/1/settings', { a: 1 }, { id: 3 })
  await settle()
  assert.deepEqual(acknowledged(one), [3])
  assert.deepEqual(one.heard.message, [])
})
