// Texts that are meant to keep the browser busy.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { launch } from './browser.mjs'
import { Person } from './people.mjs'
import { Server } from './server.mjs'
import { pieces } from '../../crates/server/web/chat/text.js'

let server, browser

before(async () => {
  server = await new Server().start()
  browser = await launch()
})

after(async () => {
  await browser?.close()
  await server?.stop()
})

const hostile = {
  'brackets that close': (size) => `http://a${')'.repeat(size)}`,
  'brackets that open and close': (size) => `http://a${'()'.repeat(size / 2)}${')'.repeat(size / 2)}`,
  'addresses': (size) => 'http://a '.repeat(size / 9),
  'addresses that are none': (size) => 'http://user@a '.repeat(size / 14),
  'almost addresses': (size) => 'http:/'.repeat(size / 6),
  'dots': (size) => `http://a${'.'.repeat(2000)} `.repeat(size / 2009)
}

for (const [name, make] of Object.entries(hostile)) {
  test(`links are found in time that grows with the text, of ${name}`, () => {
    const took = (size) => {
      const hostile = make(size)
      const began = performance.now()
      const found = pieces(hostile)
      assert.equal(found.map((piece) => piece.text ?? piece).join(''), hostile)
      assert.ok(found.length <= 1001, `${found.length} pieces`)
      return performance.now() - began
    }
    took(40_000)
    const ms = took(4_000_000)
    assert.ok(ms < 10_000, `${ms} ms for 4 MB`) // it takes a tenth of a second; growing with the square, hours
  })
}

test('addresses end where the sentence around them goes on', () => {
  const links = (said) => pieces(said).filter((piece) => piece.href).map((piece) => piece.text)
  assert.deepEqual(links('See https://example.org/a_(b)?c=d, (http://example.net/x). "https://example.com/y"!'), ['https://example.org/a_(b)?c=d', 'http://example.net/x', 'https://example.com/y'])
  assert.deepEqual(links('(https://example.org/(a)) and https://example.org/b).'), ['https://example.org/(a)', 'https://example.org/b'])
  assert.deepEqual(links(`https://example.org/${'x'.repeat(3000)} https://example.org/short`), ['https://example.org/short'])
})

test('a long text is shown in parts', async () => {
  await server.user('3', 'Carla')
  await server.user('4', 'Dora')
  await server.api('PUT', 'users/3/friends/4')
  const dora = await server.client('4', { listens: false })
  await server.write(dora, '4', '3', 'http://a/ '.repeat(60_000))
  const one = await Person.enters(browser, server.link('3'))
  await one.opens('Dora')
  const length = () => one.page.locator('.message .text').first().evaluate(({ textContent }) => textContent.length)
  await one.page.getByRole('button', { name: 'Show more of it' }).click()
  await one.page.getByRole('button', { name: 'Show more of it' }).click()
  await one.page.getByRole('button', { name: 'Show all of it' }).click()
  assert.equal(await length(), 600_000)
  assert.equal(await one.page.getByRole('list', { name: /^Messages with/ }).getByRole('link').count(), 500)
  one.isClean()
  dora.end(true)
  await one.leaves()
})
