// Debian's Chromium, driven by playwright-core. A page that is watched fails its test for every error in its console, every
// violation of its policy, and every request to another address.

import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { HtmlValidate } from 'html-validate'
import { chromium } from 'playwright-core'

const require = createRequire(import.meta.url)
const { version: driver } = require('playwright-core/package.json')

/** Which browser it was, and what has driven it: for what a failure prints. */
export const versions = (browser) => `with Chromium ${browser.version()}, playwright-core ${driver}`

const axe = readFileSync(require.resolve('axe-core/axe.min.js'), 'utf8')
const rules = ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'wcag22aa', 'best-practice']

export const executablePath = process.env.CHROMIUM ?? '/usr/bin/chromium'
const args = ['--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run', '--disable-background-networking', '--disable-component-update', '--disable-sync']

/** A browser with a new profile: playwright makes the folder, and removes it. */
export const launch = (...more) => chromium.launch({ executablePath, args: [...args, ...more] })

export const contextOf = (browser, { width = 1280, height = 800, scheme = 'light', ...more } = {}) =>
  browser.newContext({ viewport: { width, height }, colorScheme: scheme, reducedMotion: 'reduce', ...more })

/** A page at this address, in a context of its own. `faults`: what should not have been. */
export const watched = async (browser, address, options) => watchedIn(await contextOf(browser, options), address)

export async function watchedIn (context, address) {
  const { host } = new URL(address)
  const isOwn = (url) => ['blob:', 'data:'].includes(new URL(url).protocol) || new URL(url).host === host
  const page = await context.newPage()
  page.setDefaultTimeout(30_000)
  const faults = []
  page.on('console', (message) => { if (['error', 'warning'].includes(message.type())) faults.push(`console: ${message.text()}`) })
  page.on('pageerror', (error) => faults.push(`error: ${error.stack}`))
  page.on('request', (request) => { if (!isOwn(request.url())) faults.push(`request: ${request.url()}`) })
  page.on('websocket', (socket) => { if (!isOwn(socket.url())) faults.push(`socket: ${socket.url()}`) })
  await page.addInitScript(() => addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => console.error(`policy: ${violatedDirective} ${blockedURI}`)))
  await page.goto(address)
  page.faults = faults
  page.clean = () => assert.deepEqual(faults, [], versions(context.browser()))
  return page
}

export async function logIn (page, token) {
  await page.getByLabel('Admin token').fill(token)
  await page.getByRole('button', { name: 'Log in' }).click()
}

/** Goes to a page of the console by its address, and waits until nothing is loading there. */
export async function go (page, hash) {
  await page.evaluate((to) => { location.hash = to }, hash)
  await page.locator('main h1').waitFor()
  await page.waitForFunction(() => !document.querySelector('main .loading:not([hidden])'))
}

/** Of each page one: when a session ends, so does what others have set, such as that there is no network. */
const sessions = new WeakMap()

async function sessionOf (page) {
  if (!sessions.has(page)) sessions.set(page, await page.context().newCDPSession(page))
  return sessions.get(page)
}

/** What axe finds, as one line for each element. It runs in a world of its own: the page's policy does not hold there. */
export async function violations (page) {
  const session = await sessionOf(page)
  const { frameTree } = await session.send('Page.getFrameTree')
  const { executionContextId } = await session.send('Page.createIsolatedWorld', { frameId: frameTree.frame.id })
  const run = async (expression) => {
    const { result, exceptionDetails } = await session.send('Runtime.evaluate', { expression, contextId: executionContextId, awaitPromise: true, returnByValue: true })
    assert.equal(exceptionDetails, undefined, exceptionDetails?.exception?.description)
    return result.value
  }
  await run(`${axe}; 0`)
  return run(`axe.run(document, { runOnly: ${JSON.stringify(rules)} }).then(({ violations }) =>
    violations.flatMap(({ id, nodes }) => nodes.map(({ target, failureSummary }) => id + ' ' + target + ': ' + failureSummary)))`)
}

/**
 * A page as it is has no source: how it is written down, and styles that scripts set, are no matter. `role="list"` is for browsers that
 * take a list without bullets for none; a named region may be what it scrolls in.
 */
const markup = new HtmlValidate({
  root: true,
  extends: ['html-validate:recommended'],
  rules: { 'doctype-style': 'off', 'attribute-boolean-style': 'off', 'attribute-empty-style': 'off', 'no-inline-style': 'off', 'no-redundant-role': 'off', 'prefer-native-element': 'off' }
})

/** What html-validate finds in a page as it is now, as one line each. */
export async function markupFaults (content) {
  const { results } = await markup.validateString(content)
  return results.flatMap(({ messages }) => messages.map(({ ruleId, message, selector }) => `${ruleId} ${selector}: ${message}`))
}

export const isWider = (page) => page.evaluate(() => document.documentElement.scrollWidth > innerWidth)
