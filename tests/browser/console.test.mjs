// The console as an operator meets it: each case in a page of its own, against one server with a few users.

import assert from 'node:assert/strict'
import { mkdirSync } from 'node:fs'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { go, isWider, launch, logIn, violations, watched } from './browser.mjs'
import { readToken, Server, sleep, token } from './server.mjs'
import { Town } from './town.mjs'

const pictures = join(dirname(fileURLToPath(import.meta.url)), '../../docs/console')
const pages = ['overview', 'users', 'users/1?from=3', 'users/nobody-is-called-so', 'mailboxes', 'live', 'pushes', 'lockouts', 'server', 'api', 'no-such-page']
const secret = 'a text that an operator must never see'

let server, browser, ann

before(async () => {
  server = await new Server().start()
  for (const [id, name] of [['1', 'ann'], ['2', 'ben'], ['3', 'carla'], ['4', 'dev'], ['41', 'dora']]) await server.user(id, name)
  for (const other of ['2', '3', '4', '41']) await server.api('PUT', `users/1/friends/${other}`)
  await server.api('PUT', 'users/1/blocks/3')
  ann = await server.client('1')
  for (let sent = 0; sent < 5; sent++) await server.write(ann, '1', '2', secret)
  await server.write(ann, '1', '4', secret)
  browser = await launch()
})

after(async () => {
  await browser?.close()
  ann?.end(true)
  await server?.stop()
})

const inside = async (options) => {
  const page = await watched(browser, server.console, options)
  await logIn(page, token)
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
  return page
}

test('a wrong token is told so, the right one opens, and no address ever holds it', async () => {
  const page = await watched(browser, server.console)
  await logIn(page, 'wrong-token')
  await page.getByText('This is not the token of this server.').waitFor()
  assert.equal(page.faults.length, 1, `${page.faults}`) // Chromium's own line about a 401
  page.faults.length = 0
  const asked = []
  page.on('request', (request) => asked.push(request.url()))
  await logIn(page, token)
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
  assert.deepEqual(asked.filter((url) => url.includes(token)), [])
  assert.equal(await page.evaluate(() => Object.keys(localStorage).length + document.cookie.length), 0)
  await page.reload()
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByLabel('Admin token').waitFor()
  assert.equal(await page.evaluate(() => Object.keys(sessionStorage).length), 0)
  page.clean()
})

for (const scheme of ['light', 'dark']) {
  test(`every page is clean and accessible, ${scheme}, and fits 320, 768 and 1280 px`, async () => {
    const page = await watched(browser, server.console, { scheme })
    const faults = await violations(page)
    await logIn(page, token)
    for (const hash of pages) {
      await go(page, `#/${hash}`)
      if (hash === 'api') await page.locator('summary').evaluateAll((all) => { for (const summary of all) summary.click() })
      faults.push(...(await violations(page)).map((fault) => `${hash}: ${fault}`))
      assert.ok(!(await page.content()).includes(secret), hash)
      for (const width of [320, 768, 1280]) {
        await page.setViewportSize({ width, height: 800 })
        assert.equal(await isWider(page), false, `${hash} at ${width} px`)
      }
    }
    assert.deepEqual(faults, [])
    // Who asks for a user that is not there gets a 404, which Chromium writes down too.
    page.faults = page.faults.filter((fault) => !fault.includes('404'))
    assert.deepEqual(page.faults, [])
  })
}

test('users are found by the beginning of their id, and by who is online', async () => {
  const page = await inside()
  await go(page, '#/users')
  assert.equal(await page.locator('tbody tr').count(), 5)
  await page.getByLabel('online only').check()
  await page.getByText('1 shown').waitFor()
  await page.getByLabel('online only').uncheck()
  await page.getByLabel('Id begins with').fill('41')
  await page.getByRole('link', { name: '41' }).click()
  await page.getByRole('heading', { name: 'User 41' }).waitFor()
  await page.getByText('dora').waitFor()
  page.clean()
})

test('the mailbox of a user has the numbers of the API, and a purge asks for the id', async () => {
  const page = await inside()
  await go(page, '#/users/2')
  const mailbox = page.getByRole('region', { name: 'Mailbox', exact: true })
  await mailbox.getByText('Messages waiting').waitFor()
  assert.equal(await mailbox.locator('dd').first().textContent(), String((await server.api('GET', 'users/2/mailbox')).messages))
  await mailbox.getByRole('button', { name: 'Purge …' }).click()
  const dialog = page.getByRole('dialog')
  const purge = dialog.getByRole('button', { name: 'Purge' })
  assert.deepEqual(await violations(page), [])
  for (const [typed, enabled] of [['', false], ['1', false], ['22', false], ['2', true]]) {
    await dialog.getByRole('textbox').fill(typed)
    assert.equal(await purge.isEnabled(), enabled, typed)
  }
  await dialog.getByRole('textbox').fill('22')
  await page.keyboard.press('Enter')
  assert.equal((await server.api('GET', 'users/2/mailbox')).messages, 5)
  await dialog.getByRole('textbox').fill('2')
  await page.keyboard.press('Enter')
  await page.getByText('5 messages were removed.').waitFor()
  await mailbox.getByText('Nothing waits.').waitFor()
  assert.equal((await server.api('GET', 'users/2/mailbox')).messages, 0)
  page.clean()
})

test('a device that is kicked is told so by the server', async () => {
  const ben = await server.client('2')
  const told = new Promise((resolve) => ben.once('disconnect', resolve))
  const page = await inside()
  await go(page, '#/users/2')
  await page.getByRole('button', { name: 'Kick 2:phone' }).click()
  await page.getByRole('dialog').getByRole('button', { name: 'Disconnect' }).click()
  const { reasonCode } = await Promise.race([told, sleep(5000).then(() => ({}))])
  assert.equal(reasonCode, 0x98)
  await page.getByText(/^2:phone: it comes back at once/).waitFor()
  ben.end(true)
  page.clean()
})

test('a blocked friendship is told, blocked and unblocked', async () => {
  const page = await inside()
  await go(page, '#/users/1')
  const friends = page.getByRole('region', { name: 'Friends', exact: true })
  await friends.getByText('no: 1 has blocked 3').waitFor()
  await page.getByRole('button', { name: 'Block 4', exact: true }).click()
  await friends.getByText('no: 1 has blocked 4').waitFor()
  await page.getByRole('button', { name: 'Unblock 4', exact: true }).click()
  await page.getByText('1 does not block 4 any more.').waitFor()
  page.clean()
})

test('why a user gets no messages is answered for a sender', async () => {
  const page = await inside()
  await go(page, '#/users/1?from=3')
  const answer = page.getByRole('region', { name: 'Why does 1 get no messages?' })
  await answer.getByText('1 has blocked 3. What 3 writes is refused.').waitFor()
  await answer.getByLabel('From user').fill('2')
  await page.keyboard.press('Enter')
  await answer.getByText('Nothing that the server knows of keeps messages of 2 from 1.').waitFor()
  assert.equal(new URL(page.url()).hash, '#/users/1?from=2')
  await answer.getByLabel('From user').fill('77')
  await page.keyboard.press('Enter')
  await answer.getByText('There is no account 77.').waitFor()
  await go(page, '#/users/4')
  await page.getByText('4 has no device').waitFor()
  page.clean()
})

/** The series of one metric in the text of `/metrics`. */
const seriesOf = (text, metric) => [...text.matchAll(new RegExp(`^${metric}(?:{(.*)})? (\\S+)$`, 'gm'))].map(([, labels, value]) => ({ labels, value: Number(value) }))
const sum = (text, metric) => seriesOf(text, metric).reduce((total, { value }) => total + value, 0)

/** What Prometheus' histogram_quantile says of what was counted between two texts. */
function quantile (before, after, metric, q) {
  const counts = (text) => {
    const all = new Map()
    for (const { labels, value } of seriesOf(text, `${metric}_bucket`)) {
      const bound = Number(labels.match(/le="([^"]*)"/)[1].replace('+Inf', 'Infinity'))
      all.set(bound, (all.get(bound) ?? 0) + value)
    }
    return all
  }
  const earlier = counts(before)
  const steps = [...counts(after)].sort(([a], [b]) => a - b).map(([bound, count]) => [bound, count - earlier.get(bound)])
  const rank = q * steps.at(-1)[1]
  const at = steps.findIndex(([, count]) => count >= rank)
  const [lower, below] = at > 0 ? steps[at - 1] : [0, 0]
  return lower + (steps[at][0] - lower) * (rank - below) / (steps[at][1] - below)
}

/** A number as the console writes it, with up to two units: `5`, `1.2 GiB`, `730 µs`, `1 min 5 s`. */
function read (shown) {
  const units = { '': 1, B: 1, KiB: 2 ** 10, MiB: 2 ** 20, GiB: 2 ** 30, TiB: 2 ** 40, µs: 1e-6, ms: 1e-3, s: 1, min: 60, h: 3600, d: 86400 }
  const parts = [...shown.replaceAll(',', '').matchAll(/([\d.]+) ?([a-zA-Zµ]*)/g)]
  assert.ok(parts.length > 0, `no number: ${shown}`)
  return parts.reduce((total, [, number, unit]) => total + Number(number) * units[unit], 0)
}

const isNear = (shown, expected, slack, what) =>
  assert.ok(Math.abs(read(shown) - expected) <= slack, `${what}: ${shown} is shown, ${expected} expected`)

test('every number of the overview is that of /metrics at the same moment', async () => {
  const dev = await server.client('4')
  const metrics = async () => (await fetch(`http://${server.admin}/metrics`)).text()
  // The server looks for the oldest message now and then.
  const hasOldest = async () => sum(await metrics(), 'jam_mailbox_oldest_timestamp_seconds') > 0
  for (const end = Date.now() + 20_000; !(await hasOldest()) && Date.now() < end;) await sleep(200)
  assert.ok(await hasOldest(), 'what waits has been looked at')
  const page = await watched(browser, server.console)
  const given = [] // to the page, in this order
  let isHeld = false
  await page.route('**/metrics', async (route) => {
    if (!isHeld) given.push(await metrics())
    await route.fulfill({ contentType: 'text/plain', body: given.at(-1) })
  })
  await logIn(page, token)
  const tile = (metric) => page.locator(`[data-metric=${metric}]`)
  await tile('jam_connections').waitFor()
  for (let sent = 0; sent < 20; sent++) await server.write(ann, '1', sent % 2 ? '2' : '4', secret)
  const grown = (metric) => sum(given.at(-1), metric) > sum(given[0], metric)
  // What waited at first may be gone by now: then the oldest is one that was sent just now, as soon as the server has looked.
  const isOldestKnown = () => sum(given.at(-1), 'jam_mailbox_oldest_timestamp_seconds') > 0
  const hasAll = () => grown('jam_delivery_seconds_count') && grown('jam_commit_seconds_count') && isOldestKnown()
  for (const end = Date.now() + 20_000; !hasAll() && Date.now() < end;) await sleep(100)
  assert.ok(hasAll(), 'messages have been counted')
  isHeld = true
  for (let asked = 0; asked < 2; asked++) await page.waitForResponse('**/metrics')
  const [first, last] = [given[0], given.at(-1)]

  // Each tile, and what stands below it in small letters.
  const of = async (metric, index = 0) => (await tile(metric).locator('xpath=..').locator('dd').nth(index).textContent())
  for (const metric of ['jam_connections', 'jam_users_online', 'jam_mailbox_messages']) {
    assert.ok(sum(last, metric) > 0, metric)
    isNear(await of(metric), sum(last, metric), 0, metric)
  }
  isNear(await of('jam_connections', 1), sum(last, 'jam_connections_max'), 0, 'places')
  const nearly = (value) => value * 0.006 // three digits are shown
  isNear(await of('jam_mailbox_messages', 1), sum(last, 'jam_mailbox_bytes'), nearly(sum(last, 'jam_mailbox_bytes')), 'bytes')
  const oldest = Date.now() / 1000 - sum(last, 'jam_mailbox_oldest_timestamp_seconds')
  isNear(await of('jam_mailbox_oldest_timestamp_seconds'), oldest, 3, 'oldest')
  const commit = quantile(first, last, 'jam_commit_seconds', 0.99)
  isNear(await of('jam_commit_seconds'), commit, nearly(commit), 'commit')
  const free = Math.min(...seriesOf(last, 'jam_disk_available_bytes').map(({ value }) => value))
  isNear(await of('jam_disk_available_bytes'), free, nearly(free), 'free')
  assert.equal(await page.locator('[data-metric]').count(), 6)

  // And the newest of each line that shows a level, or a time of the last 15 seconds.
  const lines = Object.fromEntries(await page.locator('.legend li').evaluateAll((all) => all.map((line) => [line.childNodes[1].textContent, line.querySelector('b').textContent])))
  isNear(lines.connected, sum(last, 'jam_connections'), 0, 'connected')
  isNear(lines.online, sum(last, 'jam_users_online'), 0, 'online')
  isNear(lines.messages, sum(last, 'jam_mailbox_messages'), 0, 'messages')
  for (const [name, q] of [['p50', 0.5], ['p99', 0.99]]) {
    const time = quantile(first, last, 'jam_delivery_seconds', q)
    isNear(lines[name], time, nearly(time), name)
  }
  dev.end(true)

  await page.getByRole('heading', { name: 'Ready' }).waitFor()
  for (const table of await page.getByText('As a table').all()) await table.click()
  await page.getByRole('region', { name: /^Connections: the mean of each minute/ }).waitFor()
  assert.equal(await page.locator('.chart').count(), 6)
  assert.deepEqual(await violations(page), [])
  page.clean()
})

test('a new token is shown once, and the old one ends', async () => {
  const page = await inside()
  await go(page, '#/users/4')
  await page.getByRole('button', { name: 'New token …' }).click()
  await page.getByRole('dialog').getByRole('textbox').fill('4')
  await page.getByRole('button', { name: 'Give a new token', exact: true }).click()
  const shown = await page.locator('dialog .secret').textContent()
  assert.match(shown, /^[0-9a-f]{64}$/)
  await page.getByRole('button', { name: 'I have it' }).click()
  await page.locator('dialog .secret').waitFor({ state: 'detached' }) // the dialog goes with its event, a moment later
  assert.ok(!(await page.content()).includes(shown))
  await assert.rejects(server.client('4'))
  page.clean()
})

test('with the token that may look, a change is refused in words', async () => {
  const page = await watched(browser, server.console)
  await logIn(page, readToken)
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
  await go(page, '#/users/1')
  await page.getByRole('button', { name: 'Block 2', exact: true }).click()
  await page.getByText('This token may look, and change nothing: use admin.token.').waitFor()
  assert.equal(page.faults.filter((fault) => !fault.includes('403')).length, 0)
})

test('everything can be reached with the keyboard', async () => {
  const page = await inside()
  await page.keyboard.press('Tab')
  const names = []
  for (let pressed = 0; pressed < 14; pressed++) {
    names.push(await page.evaluate(() => document.activeElement.textContent))
    await page.keyboard.press('Shift+Tab')
  }
  for (const name of ['Skip to the page', 'Log out', 'Users', 'API']) assert.ok(names.includes(name), `${name}: ${names}`)
  await go(page, '#/users')
  assert.equal(await page.evaluate(() => document.activeElement.tagName), 'H1')
  page.clean()
})

if (process.env.UPDATE_DOCS) test('pictures for the documentation', async () => {
  mkdirSync(pictures, { recursive: true })
  const looks = [1280, 768, 320].flatMap((width) => ['light', 'dark'].map((scheme) => [width, scheme]))
  const take = async (page, name) => {
    for (const [width, colorScheme] of looks) {
      await page.setViewportSize({ width, height: 800 })
      await page.emulateMedia({ colorScheme })
      await page.screenshot({ path: join(pictures, `${name}-${colorScheme}-${width}.png`) })
    }
    await page.context().close()
  }
  const page = await inside()
  await go(page, '#/users/1?from=3')
  await take(page, 'user')
  const town = await new Town().open()
  const overview = await town.evening(browser)
  await take(overview, 'overview')
  await town.close()
})

test('a server that hangs or is gone is told, and the page comes back with it', async () => {
  const page = await inside()
  server.process.kill('SIGSTOP')
  await page.evaluate(() => { location.hash = '#/mailboxes' })
  await page.getByText('The server has not answered for 12 seconds.').first().waitFor({ timeout: 15_000 })
  server.process.kill('SIGCONT')
  await page.locator('.banner').waitFor({ state: 'hidden' })
  await page.getByRole('radio', { name: 'Largest first' }).waitFor()
  await server.end('SIGKILL')
  await page.evaluate(() => { location.hash = '#/server' })
  await page.getByText('The server cannot be reached.').first().waitFor()
  assert.deepEqual(await violations(page), [])
  await server.start()
  await page.locator('.banner').waitFor({ state: 'hidden' })
  await page.getByText('Up for').waitFor()
  const others = page.faults.filter((fault) => !/ERR_CONNECTION_REFUSED|ERR_CONNECTION_RESET|ERR_EMPTY_RESPONSE/.test(fault))
  assert.deepEqual(others, [])
})
