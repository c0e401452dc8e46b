// The chat page as two friends meet it, against the built server.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { crc32, deflateSync } from 'node:zlib'
import { launch } from './browser.mjs'
import { contextOf, Person } from './people.mjs'
import { Server, sleep } from './server.mjs'

const ann = '1'
const ben = '2'
let server, browser

before(async () => {
  server = await new Server().start()
  for (const [id, name] of [[ann, 'Ann'], [ben, 'Ben'], ['3', 'Carla'], ['4', 'ليلى']]) await server.user(id, name)
  for (const other of [ben, '3', '4']) await server.api('PUT', `users/${ann}/friends/${other}`)
  browser = await launch('--host-resolver-rules=MAP chat.test 127.0.0.1')
})

after(async () => {
  await browser?.close()
  await server?.stop()
})

/** A square PNG of one bit for each pixel, all of them black: small to send, and large to show. */
function emptyPicture (edge) {
  const chunk = (type, data) => {
    const body = Buffer.concat([Buffer.from(type), data])
    const [length, sum] = [Buffer.alloc(4), Buffer.alloc(4)]
    length.writeUInt32BE(data.length)
    sum.writeUInt32BE(crc32(body))
    return Buffer.concat([length, body, sum])
  }
  const head = Buffer.alloc(13)
  head.writeUInt32BE(edge)
  head.writeUInt32BE(edge, 4)
  head[8] = 1
  const lines = deflateSync(Buffer.alloc(edge * (1 + Math.ceil(edge / 8))))
  return Buffer.concat([Buffer.from('\x89PNG\r\n\x1A\n', 'latin1'), chunk('IHDR', head), chunk('IDAT', lines), chunk('IEND', Buffer.alloc(0))])
}

/** Two friends who are at the same conversation, one of them on a telephone. */
const two = async () => {
  const one = await Person.enters(browser, server.link(ann))
  const other = await Person.enters(browser, server.link(ben), { width: 320, height: 568 })
  await one.opens('Ben')
  await other.opens('Ann')
  return [one, other]
}

const leave = (...people) => Promise.all(people.map((person) => person.leaves()))

test('two friends in two tabs of one browser write to each other', async () => {
  const context = await contextOf(browser)
  const one = await Person.entersIn(context, server.link(ann))
  const other = await Person.entersIn(context, server.link(ben))
  await one.opens('Ben')
  await other.opens('Ann')
  await one.page.getByRole('region', { name: 'Conversation with Ben' }).getByText('online').waitFor()
  await one.writes('Hello, Ben')
  await one.sees('Hello, Ben', 'delivered')
  await other.sees('Hello, Ben')
  await other.writes('Hello, Ann')
  await one.sees('Hello, Ann')
  await other.sees('Hello, Ann', 'delivered')
  assert.deepEqual(await one.texts(), ['Hello, Ben', 'Hello, Ann'])
  assert.deepEqual(await other.texts(), ['Hello, Ben', 'Hello, Ann'])
  assert.deepEqual(await one.heard.allTextContents(), ['Ben: Hello, Ann'])
  assert.deepEqual(await other.heard.allTextContents(), ['Ann: Hello, Ben'])
  await one.isAccessible()
  for (const person of [one, other]) {
    await person.page.waitForFunction(() => !/\d/.test(document.title), null, { timeout: 3000 }) // what is seen is read
    person.isClean()
  }
  await context.close()
})

test('a link\'s token is in no address and no history, and in this tab only', async () => {
  const one = await Person.enters(browser, server.link(ann))
  await one.field.waitFor()
  const { page } = one
  assert.ok(!page.url().includes('token'), page.url())
  assert.equal(await page.evaluate(() => history.length), 2) // about:blank, and this
  assert.ok(await page.evaluate(() => JSON.stringify(sessionStorage).includes('token-of-1')))
  assert.ok(!await page.evaluate(() => (JSON.stringify(localStorage) + JSON.stringify(history.state) + document.cookie + document.documentElement.outerHTML).includes('token-of-1')))
  await page.goBack()
  await page.goForward()
  await one.field.waitFor()
  assert.ok(!page.url().includes('token'), page.url())
  const other = await Person.entersIn(page.context(), server.chat)
  await other.page.getByRole('heading', { name: 'Log in' }).waitFor()
  // A link that is pasted into a tab that is open already.
  await page.evaluate((link) => { location.href = link }, server.link(ben))
  await one.page.getByText('You are user 2').waitFor()
  assert.ok(!page.url().includes('token'), page.url())
  one.isClean()
  other.isClean()
  await one.leaves()
})

test('the first view costs at most 60 KB, and shows where to write within a second', async (t) => {
  const context = await contextOf(browser)
  const page = await context.newPage()
  await page.addInitScript(() => {
    const look = () => {
      if (document.querySelector('.composer textarea')) window.shownAfter = performance.now()
      else requestAnimationFrame(look)
    }
    look()
  })
  const session = await context.newCDPSession(page)
  await session.send('Network.enable')
  let bytes = 0
  session.on('Network.loadingFinished', ({ encodedDataLength }) => { bytes += encodedDataLength })
  await page.goto(server.link(ann))
  await page.getByRole('textbox', { name: 'Message to' }).waitFor()
  assert.ok(bytes > 10_000 && bytes <= 60_000, `${bytes} bytes`)
  // A second, on a machine that does nothing else. What the tests run on may have a share of a core: the bound is for what hangs.
  const ms = await page.evaluate(() => window.shownAfter)
  t.diagnostic(`${bytes} bytes; one can write after ${Math.round(ms)} ms`)
  assert.ok(ms < 5000, `${ms} ms`)
  await context.close()
})

test('what a friend writes is text, whatever it is', async () => {
  const one = await Person.enters(browser, server.link(ann))
  await one.opens('Carla')
  const carla = await server.client('3', { listens: false })
  const write = (content, more) => server.write(carla, '3', ann, content, more)
  const markup = '<img src=x onerror=alert(1)><script>alert(2)</script>&amp;<a href="javascript:alert(3)">click</a>'
  await write(markup)
  await write('javascript:alert(1) data:text/html,x vbscript:x file:///etc/passwd ftp://host/x //host/x')
  await write('See https://example.org/a_(b)?c=d&e=<f>, (http://example.net/x). And https://user:word@evil.example/ is none.')
  await write({ deep: { markup }, list: [1, 2, 3] })
  await write([300, -1, 'x'])
  await write(42)
  await write(null)
  await write('x'.repeat(200_000))
  await write('مرحبا كيف حالك')
  await write('\u202Egnp.exe')
  await write([0xFF, 0xD8, 0xFF, 0xE0, ...Array(40).fill(0)])
  await write([0x89, 0x50, 0x4E, 0x47, 0x0D, 0x0A, 0x1A, 0x0A, 0, 0, 0, 13, 0x49, 0x48, 0x44, 0x52, 0x7F, 0xFF, 0xFF, 0xFF, 0x7F, 0xFF, 0xFF, 0xFF, 8, 6, 0, 0, 0])
  for (const timestamp of ['1970-01-01T00:00:00Z', '2999-12-31T23:59:59Z', 'soon', 7]) await write(`at ${timestamp}`, { timestamp })
  await write(Array.from(emptyPicture(8000)))
  await write('the last one')
  await one.sees('the last one')
  const { page } = one
  const list = page.getByRole('list', { name: /^Messages with/ })
  assert.deepEqual(await list.getByRole('link').evaluateAll((links) => links.map(({ href, rel, target }) => [href, rel, target])), [
    ['https://example.org/a_(b)?c=d&e=', 'noopener noreferrer', '_blank'],
    ['http://example.net/x', 'noopener noreferrer', '_blank']
  ])
  assert.equal(await list.locator('img, script, iframe, object, [onerror]').count(), 0)
  assert.ok((await one.texts()).includes(markup))
  assert.equal(await list.getByText('A picture that cannot be shown.').count(), 3)
  assert.deepEqual(await list.locator('.day').allTextContents(), ['Today'], 'what a wrong clock says')
  assert.ok((await one.texts()).every((text) => text.length <= 3001))
  await page.getByRole('button', { name: 'Show all of it' }).click()
  assert.ok((await one.texts()).some((text) => text.length === 200_000))
  const ofArabic = one.message('مرحبا').locator('.text')
  assert.equal(await ofArabic.evaluate((element) => getComputedStyle(element).direction), 'rtl')
  await one.isAccessible()
  await page.setViewportSize({ width: 320, height: 640 })
  await one.isAccessible()
  one.isClean()
  carla.end(true)
  await one.leaves()
})

test('names are text too, in any script and of any length', async () => {
  await server.user('5', '<b>Eve</b>\u202E<script>alert(1)</script>')
  await server.user('6', 'ف'.repeat(500))
  for (const other of ['5', '6']) await server.api('PUT', `users/3/friends/${other}`)
  const one = await Person.enters(browser, server.link('3'))
  await one.friend('<b>Eve</b>').waitFor()
  await one.isAccessible()
  await one.opens('<b>Eve</b>')
  await one.opens('ففف')
  await one.isAccessible()
  assert.equal(await one.page.locator('script:not([src])').count(), 0)
  one.isClean()
  await one.leaves()
})

test('offline is told, with when it is tried again; what is written goes later, also over a reload', async () => {
  const one = await Person.enters(browser, server.link('4'))
  await one.opens('Ann')
  await one.writes('before')
  await one.sees('before', 'sent')
  await server.end('SIGKILL')
  const { page } = one
  await page.getByRole('status').getByText('You are offline').waitFor()
  await page.getByRole('timer').getByText(/Trying again/).waitFor()
  await one.writes('while it is away', 'and one more')
  await one.sees('while it is away', 'waiting to be sent')
  await one.isAccessible()
  await server.start()
  await page.getByRole('button', { name: 'Try now' }).click({ timeout: 2000 }).catch(() => {}) // or it has just done so by itself
  await page.getByRole('status').getByText('You are offline').waitFor({ state: 'hidden', timeout: 70_000 })
  await one.sees('while it is away', 'sent')
  await one.sees('and one more', 'sent')
  await server.end('SIGKILL')
  await one.writes('over a reload')
  await one.sees('over a reload', 'waiting to be sent')
  await server.start()
  await page.reload()
  await one.opens('Ann')
  await one.sees('over a reload', 'sent')
  assert.deepEqual(await one.texts(), ['before', 'while it is away', 'and one more', 'over a reload'])
  one.isClean({ cuts: true })
  await one.leaves()
})

test('without a network that is told at once, what is written waits, and goes when it is back', async () => {
  const [one, other] = await two()
  const network = one.page.context()
  await one.writes('over the network')
  await one.sees('over the network', 'delivered')
  await network.setOffline(true)
  await one.page.getByRole('status').getByText('You are offline').waitFor()
  await one.writes('without a network')
  await other.writes('to somebody without a network')
  await one.sees('You: without a network', 'waiting to be sent')
  await one.isAccessible()
  await network.setOffline(false)
  await one.sees('You: without a network', 'delivered')
  await other.sees('You: to somebody without a network', 'delivered')
  await one.sees('Ben: to somebody without a network')
  assert.equal(await one.page.getByRole('status').count(), 0)
  for (const person of [one, other]) person.isClean({ cuts: true })
  await leave(one, other)
})

test('what the server has acknowledged is on all pages after kill -9 in mid-conversation and after a reload, once', async () => {
  const context = await contextOf(browser)
  const one = await Person.entersIn(context, server.link(ann))
  await one.opens('Ben')
  const tab = await Person.entersIn(context, server.link(ann))
  const other = await Person.enters(browser, server.link(ben), { width: 320, height: 568 })
  await tab.opens('Ben')
  await other.opens('Ann')
  const people = [one, tab, other]
  const said = []
  const writes = async (person, from) => {
    for (let count = 0; count < 30; count++) {
      said.push(`${from} ${count}`)
      await person.writes(`${from} ${count}`)
    }
  }
  const killed = sleep(400).then(() => server.end('SIGKILL')).then(() => server.start())
  await Promise.all([killed, writes(one, 'Ann says'), writes(tab, 'Ann adds'), writes(other, 'Ben says')])
  for (const isAgain of [false, true]) {
    for (const person of people) {
      if (isAgain) await person.page.reload()
      const shown = async () => (await person.texts()).filter((text) => said.includes(text))
      for (const end = Date.now() + 70_000; (await shown()).length < said.length && Date.now() < end;) await sleep(50)
      const texts = await shown()
      assert.deepEqual(texts.toSorted(), said.toSorted())
      for (const from of ['Ann says', 'Ann adds', 'Ben says']) {
        assert.deepEqual(texts.filter((text) => text.startsWith(from)), said.filter((text) => text.startsWith(from)))
      }
      await person.page.waitForFunction(() => !document.querySelector('.message.queued'), null, { timeout: 70_000 })
      person.isClean({ cuts: true })
    }
  }
  await context.close()
  await other.leaves()
})

test('a second device takes over, and "Use here" takes it back', async () => {
  const first = await Person.enters(browser, server.link('3'))
  await first.friend('Ann').waitFor()
  const second = await Person.enters(browser, server.link('3'))
  await second.friend('Ann').waitFor()
  await first.alert.getByText('another device').waitFor()
  await first.isAccessible()
  second.isClean()
  await sleep(3000)
  assert.equal(await second.alert.count(), 0, 'the first has come back by itself')
  await first.page.getByRole('button', { name: 'Use here' }).click()
  await second.alert.getByText('another device').waitFor()
  await first.alert.waitFor({ state: 'hidden' })
  first.isClean()
  second.isClean()
  await leave(first, second)
})

test('a refused message says why, in its place and aloud, and can be sent again', async (t) => {
  const [one, other] = await two()
  t.after(() => Promise.all([server.api('DELETE', `users/${ben}/blocks/${ann}`), server.api('DELETE', `users/${ann}/blocks/${ben}`)]))
  await server.api('PUT', `users/${ben}/blocks/${ann}`)
  await one.writes('Are you angry?')
  await one.alert.getByText('You and Ben are not friends, or one of you has blocked the other.').waitFor()
  await one.sees('Are you angry?', 'not sent')
  await one.isAccessible()
  await one.page.reload()
  await one.sees('Are you angry?', 'not sent')
  assert.equal(await one.alert.count(), 0, 'what was refused before is not called out again')
  await server.api('DELETE', `users/${ben}/blocks/${ann}`)
  await one.message('Are you angry?').getByRole('button', { name: 'Retry' }).click()
  await one.sees('Are you angry?', 'delivered')
  await other.sees('Are you angry?')
  await server.api('PUT', `users/${ann}/blocks/${ben}`)
  await one.page.getByText('You have blocked Ben.').waitFor()
  assert.equal(await one.field.count(), 0)
  await server.api('DELETE', `users/${ann}/blocks/${ben}`)
  await one.field.waitFor()
  for (const person of [one, other]) person.isClean()
  await leave(one, other)
})

test('a wrong login is refused in plain words, a right one opens, stays if it is to, and ends', async () => {
  const one = await Person.enters(browser, server.chat)
  const { page } = one
  const logIn = async (user, token) => {
    await page.getByLabel('User id').fill(user)
    await page.getByLabel('Token').fill(token)
    await page.getByRole('button', { name: 'Log in' }).click()
  }
  await one.isAccessible()
  await logIn(ann, 'wrong')
  await one.alert.getByText('The token is not the one of this user').waitFor()
  await one.isAccessible()
  await logIn('nobody', 'token')
  await one.alert.getByText('The server knows no user with this id.').waitFor()
  await logIn('a/b', 'token')
  await one.alert.waitFor()
  await page.getByLabel('Stay logged in').check()
  await logIn(ann, 'token-of-1')
  await one.field.waitFor()
  assert.ok(await page.evaluate(() => JSON.stringify(localStorage).includes('token-of-1')))
  const other = await Person.entersIn(page.context(), server.chat)
  await other.field.waitFor()
  await one.opens('Ben')
  await one.writes('before I go')
  await other.opens('Ben')
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByRole('status').getByText('You are logged out.').waitFor()
  await one.isAccessible()
  assert.ok(!await page.evaluate(() => (JSON.stringify(localStorage) + JSON.stringify(sessionStorage)).includes('token-of-1')))
  await page.getByRole('button', { name: 'Remove them' }).click()
  await other.page.getByRole('heading', { name: 'Log in' }).waitFor()
  await logIn(ann, 'token-of-1')
  await one.opens('Ben')
  await page.getByText('Nothing written yet').first().waitFor()
  assert.equal(await one.message('before I go').count(), 0)
  one.isClean()
  await one.leaves()
})

test('whose token changes while the page is open is asked for the new one', async () => {
  await server.user('9', 'Nora')
  const one = await Person.enters(browser, server.link('9'))
  await one.page.getByText('You have no friends here yet').waitFor()
  await one.isAccessible()
  await server.api('PUT', 'users/9/token', { token: 'another-token' })
  await one.alert.getByText('The token is not the one of this user').waitFor()
  assert.equal(await one.page.getByLabel('User id').inputValue(), '9')
  await one.page.getByLabel('Token').fill('another-token')
  await one.page.keyboard.press('Enter')
  await one.page.getByText('You have no friends here yet').waitFor()
  one.isClean()
  await one.leaves()
})

test('a thousand messages wait: all come once and in order, the new ones are marked, and the end is a button away', async () => {
  await server.user('7', 'Greta')
  await server.user('8', 'Hugo')
  await server.api('PUT', 'users/7/friends/8')
  const hugo = await server.client('8', { listens: false })
  const texts = Array.from({ length: 1000 }, (_, count) => `message ${count}`)
  for (const text of texts) await server.write(hugo, '8', '7', text)
  const one = await Person.enters(browser, server.link('7'), { width: 375, height: 700 })
  await one.friend('Hugo').getByText('999+').waitFor({ timeout: 30_000 })
  assert.match(await one.page.title(), /1000/)
  await one.opens('Hugo')
  await one.page.getByText('New messages', { exact: true }).waitFor()
  await one.page.waitForFunction(() => document.querySelectorAll('.message').length === 1000)
  assert.deepEqual(await one.texts(), texts)
  const jump = one.page.getByRole('button', { name: 'Jump to the newest' })
  await jump.waitFor()
  assert.equal(await one.message('message 999').evaluate((element) => element.getBoundingClientRect().top > innerHeight), true)
  await server.write(hugo, '8', '7', 'a last one')
  await one.page.getByRole('button', { name: '1 new' }).waitFor()
  assert.match(await one.page.title(), /\(1\)/, 'what is out of sight is not read')
  await one.isAccessible()
  const { page } = one
  const place = () => page.locator('.scroll').evaluate((element) => Math.round(element.scrollTop))
  const before = await place()
  await server.write(hugo, '8', '7', 'the very last one')
  await page.getByRole('button', { name: '2 new' }).waitFor()
  assert.equal(await place(), before, 'what comes does not steal the place')
  await page.getByRole('button', { name: '2 new' }).click()
  await jump.waitFor({ state: 'hidden' })
  await page.waitForFunction(() => !/\d/.test(document.title))
  await page.reload()
  await one.message('the very last one').waitFor()
  // What is older comes meanwhile, above the line that is looked at.
  const looked = await page.evaluate(async () => {
    const scroll = document.querySelector('.scroll')
    scroll.scrollTop = 500
    await new Promise(requestAnimationFrame)
    const line = Array.from(scroll.querySelectorAll('.message')).find((message) => message.getBoundingClientRect().top > 200)
    return { count: scroll.querySelectorAll('.message').length, order: line.dataset.order, top: line.getBoundingClientRect().top }
  })
  assert.ok(looked.count < 1002, `${looked.count}`)
  await page.waitForFunction(() => document.querySelectorAll('.message').length === 1002)
  const top = await page.locator(`[data-order="${looked.order}"]`).evaluate((line) => line.getBoundingClientRect().top)
  assert.ok(Math.abs(top - looked.top) < 3, `${looked.top} to ${top}`)
  assert.deepEqual(await one.texts(), [...texts, 'a last one', 'the very last one'])
  one.isClean()
  hugo.end(true)
  await one.leaves()
})

test('drafts stay with their friends, also over a reload', async () => {
  const one = await Person.enters(browser, server.link(ann))
  await one.opens('Ben')
  await one.field.fill('half a th')
  await one.opens('Carla')
  assert.equal(await one.field.inputValue(), '')
  await one.friend('Ben').getByText('Draft').waitFor()
  await one.page.reload()
  await one.opens('Ben')
  assert.equal(await one.field.inputValue(), 'half a th')
  await one.writes('half a thought')
  await one.opens('Carla')
  assert.equal(await one.friend('Ben').getByText('Draft').count(), 0)
  one.isClean()
  await one.leaves()
})

test('two tabs of one user show the same; when the first is closed the second goes on', async () => {
  const context = await contextOf(browser)
  const one = await Person.entersIn(context, server.link(ann))
  await one.opens('Ben') // it leads: without a connection nobody knows a friend yet
  const tab = await Person.entersIn(context, server.link(ann))
  const other = await Person.enters(browser, server.link(ben))
  await tab.opens('Ben')
  await other.opens('Ann')
  await tab.writes('from the second tab')
  for (const person of [one, tab]) await person.sees('from the second tab', 'delivered')
  await other.writes('to both tabs')
  for (const person of [one, tab]) await person.sees('to both tabs')
  await one.page.close()
  await other.writes('to the one that is left')
  await tab.sees('to the one that is left')
  await tab.writes('it goes on')
  await tab.sees('it goes on', 'delivered')
  await other.sees('it goes on')
  for (const person of [one, tab, other]) person.isClean()
  await context.close()
  await other.leaves()
})

test('what the first tab has stored and not told of, the second shows when it takes over', async () => {
  const context = await contextOf(browser)
  const one = await Person.entersIn(context, server.link(ann))
  await one.opens('Ben') // it leads: without a connection nobody knows a friend yet
  const tab = await Person.entersIn(context, server.link(ann))
  const other = await Person.enters(browser, server.link(ben))
  await tab.opens('Ben')
  await other.opens('Ann')
  await one.page.evaluate(() => { BroadcastChannel.prototype.postMessage = () => {} })
  await other.writes('stored, and told to nobody')
  await one.sees('stored, and told to nobody')
  assert.equal(await tab.page.getByText('stored, and told to nobody').count(), 0)
  await one.page.close()
  await tab.sees('stored, and told to nobody')
  for (const person of [tab, other]) person.isClean()
  await context.close()
  await other.leaves()
})

test('a picture is drawn anew, sent as bytes that apps know, and shown', async () => {
  const [one, other] = await two()
  const device = await server.client('3')
  const { page } = one
  const picture = Buffer.from(await page.evaluate(async () => {
    const canvas = Object.assign(document.createElement('canvas'), { width: 1800, height: 1100 })
    const context = canvas.getContext('2d')
    const noise = context.createImageData(canvas.width, canvas.height)
    for (let at = 0; at < noise.data.length; at += 65_536) crypto.getRandomValues(noise.data.subarray(at, at + 65_536))
    context.putImageData(noise, 0, 0)
    return canvas.toDataURL('image/png').split(',')[1]
  }), 'base64')
  assert.ok(picture.length > 1_500_000, `${picture.length}`)
  const attach = async (name, buffer) => {
    const chooser = page.waitForEvent('filechooser')
    await page.getByRole('button', { name: 'Attach a picture' }).click()
    await (await chooser).setFiles({ name, mimeType: 'image/png', buffer })
  }
  await attach('a.png', Buffer.from('no picture at all'))
  await one.alert.getByText('This file is no picture').waitFor()
  await one.opens('Carla')
  await attach('a.png', picture)
  await page.getByRole('img', { name: 'The picture that you are about to send' }).waitFor()
  await one.isAccessible()
  await page.getByRole('button', { name: 'Send', exact: true }).click()
  const arrived = new Promise((resolve) => device.on('message', (_topic, payload) => resolve(JSON.parse(payload))))
  const { content } = await arrived
  assert.ok(Array.isArray(content) && content.length <= 1_000_000 && content.length > 10_000, `${content.length}`)
  assert.deepEqual(content.slice(0, 3), [0xFF, 0xD8, 0xFF])
  await one.opens('Ben')
  await attach('a.png', picture)
  await page.getByRole('img', { name: 'The picture that you are about to send' }).waitFor()
  await one.field.press('Enter')
  await one.page.getByRole('img', { name: 'Picture from you' }).waitFor()
  const shown = other.page.getByRole('img', { name: 'Picture from Ann' })
  await shown.waitFor()
  await other.page.waitForFunction(() => Array.from(document.querySelectorAll('.picture img')).every((image) => image.complete && image.naturalWidth > 600 && image.naturalWidth <= 1600))
  await shown.click()
  const dialog = other.page.getByRole('dialog', { name: 'Picture from Ann' })
  await dialog.waitFor()
  await other.isAccessible()
  await other.page.keyboard.press('Escape')
  await dialog.waitFor({ state: 'hidden' })
  for (const person of [one, other]) person.isClean()
  device.end(true)
  await leave(one, other)
})

test('Enter sends, Shift+Enter begins a line, and what an input method composes is not sent', async () => {
  const one = await Person.enters(browser, server.link(ann))
  await one.opens('Ben')
  const { page } = one
  await one.field.pressSequentially('one')
  await page.keyboard.press('Shift+Enter')
  await one.field.pressSequentially('two')
  const session = await page.context().newCDPSession(page)
  await session.send('Input.imeSetComposition', { text: 'に', selectionStart: 1, selectionEnd: 1 })
  await session.send('Input.dispatchKeyEvent', { type: 'keyDown', key: 'Enter', code: 'Enter', windowsVirtualKeyCode: 229 })
  await session.send('Input.insertText', { text: '日本' })
  assert.equal(await one.field.inputValue(), 'one\ntwo日本')
  await page.keyboard.press('Enter')
  await one.message('two日本').waitFor()
  assert.ok((await one.texts()).includes('one\ntwo日本'))
  await page.keyboard.press('Enter')
  await one.field.fill('   ')
  await page.keyboard.press('Enter')
  assert.ok((await one.texts()).every((text) => text.trim()))
  one.isClean()
  await one.leaves()
})

for (const scheme of ['light', 'dark']) {
  test(`a telephone shows one column, ${scheme}; 320, 768 and 1280 px and twice the size fit`, async () => {
    const one = await Person.enters(browser, server.link(ann), { scheme, width: 320, height: 568 })
    const { page } = one
    await one.friend('Ben').waitFor()
    assert.equal(await one.field.count(), 0)
    await one.isAccessible()
    await one.opens('Ben')
    assert.equal(await one.friend('Ben').isVisible(), false)
    await one.isAccessible()
    await page.getByRole('button', { name: 'Emoji' }).click()
    await one.isAccessible()
    await page.keyboard.press('Escape')
    await page.goBack()
    await one.friend('Ben').waitFor()
    await one.opens('Ben')
    await page.getByRole('button', { name: 'Back to the list' }).click()
    await one.friend('Ben').waitFor()
    for (const [width, height] of [[768, 600], [1280, 800], [640, 400]]) {
      await page.setViewportSize({ width, height })
      await one.friend('Ben').waitFor()
      await one.opens('Ben')
      await one.field.waitFor()
      await one.isAccessible()
    }
    await page.emulateMedia({ forcedColors: 'active' })
    await one.isAccessible()
    await page.emulateMedia({ forcedColors: 'none' })
    await page.evaluate(() => { document.documentElement.dir = 'rtl' })
    await one.isAccessible()
    const small = await page.getByRole('button').or(page.getByRole('textbox')).evaluateAll((all) => all
      .map((element) => [element.getAttribute('aria-label') ?? element.textContent, element.getBoundingClientRect()])
      .filter(([, { width, height }]) => width > 1 && (width < 44 || height < 44)).map(([name, { width, height }]) => `${name}: ${width} x ${height}`))
    assert.deepEqual(small, [])
    one.isClean()
    await one.leaves()
  })
}

test('a browser that keeps nothing, and an origin that is not secure, can chat', async () => {
  const denied = await contextOf(browser)
  await denied.addInitScript(() => {
    for (const name of ['indexedDB', 'localStorage', 'sessionStorage']) Object.defineProperty(globalThis, name, { get () { throw new DOMException('denied', 'SecurityError') } })
  })
  const one = await Person.entersIn(denied, server.link(ann))
  const other = await Person.enters(browser, server.link(ben).replace('127.0.0.1', 'chat.test'))
  assert.equal(await other.page.evaluate(() => isSecureContext), false)
  await one.opens('Ben')
  await other.opens('Ann')
  await one.writes('from memory')
  await one.sees('from memory', 'delivered')
  await other.sees('from memory')
  await other.writes('without a lock')
  await one.sees('without a lock')
  one.isClean()
  // Chromium says that it does without that header there.
  other.page.faults = other.page.faults.filter((fault) => !/Cross-Origin-Opener-Policy header has been ignored/.test(fault))
  other.isClean()
  await denied.close()
  await other.leaves()
})
