// An empty page with jam.js of this checkout, under the chat page's policy, at an address of its own. `jam` in the page is started
// by `open`, and `heard` has its events.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { versions } from './browser.mjs'

const web = new URL('../../crates/server/web/', import.meta.url)
const html = '<!doctype html><html lang="en"><meta charset="utf-8"><title>Page</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>'
const script = `
import { Jam } from '/jam.js'
window.open = async (options) => {
  const jam = window.jam = new Jam(options)
  window.heard = Object.fromEntries(['state', 'message', 'update', 'unread', 'error', 'logout', 'leader', 'presence', 'friends'].map((type) => [type, []]))
  for (const type of Object.keys(heard)) jam.on(type, ({ detail }) => heard[type].push(detail))
  await jam.start()
}
window.all = async (friend) => (await jam.history(friend, { limit: 100_000 })).map(({ content, state, own }) => ({ content, state, own }))
window.ready = true
`

/** `sandboxed`: the page has no origin, so that the browser denies it IndexedDB, Web Locks and the like. */
export async function servePages () {
  const server = createServer(({ url }, response) => {
    const [type, body] = { '/jam.js': ['text/javascript', readFileSync(new URL('jam.js', web))], '/page.js': ['text/javascript', script] }[url] ?? ['text/html', html]
    response.writeHead(200, {
      'Content-Type': type,
      'Access-Control-Allow-Origin': '*',
      'Content-Security-Policy': `default-src 'none'; script-src *; connect-src ws:; img-src data:; base-uri 'none'; require-trusted-types-for 'script'${url === '/sandboxed' ? '; sandbox allow-scripts' : ''}`
    })
    response.end(body)
  })
  await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve))
  return { port: server.address().port, close: () => server.close() }
}

/** A tab with the page, whose errors fail the test at `clean()`. */
export async function tab (context, address) {
  const page = await context.newPage()
  page.setDefaultTimeout(20_000)
  const faults = []
  page.on('console', (message) => { if (message.type() === 'error') faults.push(message.text()) })
  page.on('pageerror', (error) => faults.push(error.stack))
  await page.addInitScript(() => addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => console.error(`policy: ${violatedDirective} ${blockedURI}`)))
  await page.goto(address)
  await page.waitForFunction(() => window.ready)
  page.clean = () => assert.deepEqual(faults, [], versions(context.browser()))
  return page
}
