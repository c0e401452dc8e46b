// jam.js in a real browser: what only real tabs, a real IndexedDB and a real end of a process can show.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { launch } from './browser.mjs'
import { servePages, tab } from './jam-page.mjs'
import { Server } from './server.mjs'

let server, browser, pages, ben
let users = 10

before(async () => {
  server = await new Server().start()
  pages = await servePages()
  browser = await launch(`--host-resolver-rules=MAP jam.test 127.0.0.1`)
})

after(async () => {
  await browser?.close()
  pages?.close()
  await server?.stop()
})

/** A user with a friend who writes by mqtt.js, and a browser profile of their own. */
async function meet () {
  const [user, friend] = [`${++users}`, `${++users}`]
  for (const id of [user, friend]) await server.user(id, `user ${id}`)
  await server.api('PUT', `users/${user}/friends/${friend}`)
  ben = await server.client(friend, { listens: false })
  let number = 0
  const write = (content) => ben.publishAsync(`/${user}/inbox`, JSON.stringify({ from: friend, id: `${friend}-${number++}`, timestamp: new Date().toISOString(), content, type: 0 }), { qos: 1 })
  return { user, friend, write, end: () => ben.endAsync(true), context: await browser.newContext() }
}

const port = () => server.http.split(':').at(-1)
const options = ({ user }, host = '127.0.0.1') => ({ url: `ws://${host}:${port()}/mqtt`, user, token: `token-of-${user}` })
const secure = () => `http://127.0.0.1:${pages.port}/`
const start = async (page, given) => page.evaluate((given) => window.open(given), given)
const contents = async (page, friend) => (await page.evaluate((friend) => window.all(friend), friend)).map(({ content }) => content)
const waitFor = (page, condition, argument) => page.waitForFunction(condition, argument)

for (const [where, address, host, locks] of [['', secure, '127.0.0.1', true], [' on an insecure origin', () => `http://jam.test:${pages.port}/`, 'jam.test', false]]) {
  test(`two tabs${where} share a connection and a store; when the leader is closed, the other goes on`, async () => {
    const pair = await meet()
    const [first, second] = [await tab(pair.context, address()), await tab(pair.context, address())]
    assert.deepEqual(await first.evaluate(() => [isSecureContext, 'locks' in navigator, typeof crypto.randomUUID]), [locks, locks, locks ? 'function' : 'undefined'])
    await start(first, options(pair, host))
    await waitFor(first, () => window.jam.state.state === 'connected')
    await start(second, options(pair, host))
    await waitFor(second, () => window.jam.state.state === 'connected')
    assert.deepEqual([await first.evaluate(() => window.jam.leader), await second.evaluate(() => window.jam.leader)], [true, false])
    await pair.write('to both')
    for (const page of [first, second]) await waitFor(page, () => window.heard.message.some(({ content }) => content === 'to both'))
    await second.evaluate((friend) => window.jam.send(friend, 'by the second'), pair.friend)
    for (const page of [first, second]) await waitFor(page, () => window.heard.update.some(({ content, state }) => content === 'by the second' && state === 'sent'))
    assert.equal(await second.title(), '(1) Page')
    await second.evaluate((friend) => window.jam.read(friend), pair.friend)
    await waitFor(first, () => document.title === 'Page')
    first.clean()
    await first.close()
    await waitFor(second, () => window.jam.leader && window.jam.state.state === 'connected')
    await pair.write('after it')
    await second.evaluate((friend) => window.jam.send(friend, 'from the new leader'), pair.friend)
    await waitFor(second, () => window.heard.update.some(({ content, state }) => content === 'from the new leader' && state === 'sent'))
    await waitFor(second, () => window.heard.message.some(({ content }) => content === 'after it'))
    assert.deepEqual((await contents(second, pair.friend)).sort(), ['after it', 'by the second', 'from the new leader', 'to both'])
    second.clean()
    await pair.end()
    await pair.context.close()
  })
}

test('a tab killed between arrival and commit has acknowledged nothing: the message comes again and is shown once', async () => {
  const pair = await meet()
  const page = await tab(pair.context, secure())
  await start(page, options(pair))
  await waitFor(page, () => window.jam.state.state === 'connected')
  await pair.write('before')
  await waitFor(page, () => window.heard.message.length === 1)
  await page.evaluate(() => {
    const { put } = IDBObjectStore.prototype
    IDBObjectStore.prototype.put = function (value, key) {
      const request = put.call(this, value, key)
      // It has arrived and is written, and its transaction never comes to its commit.
      const on = () => { this.get(key).onsuccess = on }
      if (value?.content === 'mortal') {
        window.arrived = true
        on()
      }
      return request
    }
  })
  await pair.write('mortal')
  await waitFor(page, () => window.arrived)
  const crashed = page.waitForEvent('crash')
  const session = await pair.context.newCDPSession(page)
  session.send('Page.crash').catch(() => {})
  await crashed
  const next = await tab(pair.context, secure())
  await start(next, options(pair))
  await waitFor(next, () => window.heard.message.length === 1)
  await pair.write('after')
  await waitFor(next, () => window.heard.message.length === 2)
  assert.deepEqual(await contents(next, pair.friend), ['before', 'mortal', 'after'])
  next.clean()
  await pair.end()
  await pair.context.close()
})

test('IndexedDB, Web Locks and the rest denied: it works, and says that nothing survives a reload', async () => {
  const pair = await meet()
  const page = await tab(pair.context, `${secure()}sandboxed`)
  const denied = await page.evaluate(() => {
    try {
      indexedDB.open('x')
      return 'allowed'
    } catch ({ name }) {
      return name
    }
  })
  assert.equal(denied, 'SecurityError')
  await start(page, options(pair))
  assert.equal(await page.evaluate(() => window.jam.persistent), false)
  await waitFor(page, () => window.jam.state.state === 'connected')
  await pair.write('hello')
  await waitFor(page, () => window.heard.message.length === 1)
  await page.evaluate((friend) => window.jam.send(friend, 'hello too'), pair.friend)
  await waitFor(page, () => window.heard.update.some(({ state }) => state === 'sent'))
  assert.deepEqual(await contents(page, pair.friend), ['hello', 'hello too'])
  page.clean()
  await pair.end()
  await pair.context.close()
})

test('a thousand waiting messages, and a server that is killed while they come: in order, each once', async () => {
  const pair = await meet()
  const numbers = [...Array(1000).keys()].map(String)
  await Promise.all(numbers.map(pair.write))
  const page = await tab(pair.context, secure())
  await start(page, options(pair))
  await waitFor(page, () => window.heard.message.length > 100)
  await pair.end()
  await server.end('SIGKILL')
  await server.start()
  await waitFor(page, () => window.heard.message.length >= 1000)
  assert.deepEqual(await contents(page, pair.friend), numbers)
  assert.deepEqual(await page.evaluate(() => window.heard.message.map(({ content }) => content)), numbers)
  await pair.context.close()
})

test('what was written offline goes out after a reload, in its order', async () => {
  const pair = await meet()
  const page = await tab(pair.context, secure())
  await start(page, { ...options(pair), url: 'ws://127.0.0.1:1/mqtt' })
  for (const content of ['a', 'b', 'c']) await page.evaluate(([friend, content]) => window.jam.send(friend, content), [pair.friend, content])
  await page.reload()
  await page.waitForFunction(() => window.ready)
  await start(page, options(pair))
  await waitFor(page, () => window.heard.update.filter(({ state }) => state === 'sent').length === 3)
  assert.deepEqual(await page.evaluate(() => window.heard.update.map(({ content }) => content)), ['a', 'b', 'c'])
  await pair.end()
  await pair.context.close()
})
