// The pages of what happens: Live, Pushes, Lockouts. A server of their own, whose pushes go to a stand-in.

import assert from 'node:assert/strict'
import http from 'node:http'
import net from 'node:net'
import { once } from 'node:events'
import { after, before, test } from 'node:test'
import { go, launch, logIn, violations, watched } from './browser.mjs'
import { readToken, Server, sleep, token } from './server.mjs'

const secret = 'a text that an operator must never see'
const guesses = 11 // one more than limits.failed_auth

let server, browser, service, ann
let status = 204

before(async () => {
  service = http.createServer((request, response) => { request.resume(); response.writeHead(status).end() }).listen(0, '127.0.0.1')
  await once(service, 'listening')
  server = await new Server({
    JAM_MQTT_PUSH__WEBHOOK_URL: `http://127.0.0.1:${service.address().port}/hook-that-is-secret`,
    JAM_MQTT_PUSH__WEBHOOK_SECRET: 'of-the-webhook'
  }).start()
  for (const id of ['1', '2', '3', '4']) await server.user(id, `user${id}`)
  for (const other of ['2', '3', '4']) await server.api('PUT', `users/1/friends/${other}`)
  ann = await server.client('1')
  browser = await launch()
})

after(async () => {
  await browser?.close()
  ann?.end(true)
  await server?.stop()
  service?.close()
  service?.closeAllConnections()
})

const inside = async (hash, options) => {
  const page = await watched(browser, server.console, options)
  await logIn(page, options?.token ?? token)
  await page.getByRole('heading', { name: 'Overview' }).waitFor()
  await go(page, hash)
  return page
}

/** A login of 3.1.1 with a wrong token, from an address of its own. The code that it is refused with. */
async function guess (from, user = '2') {
  const text = (value) => Buffer.concat([Buffer.from([0, value.length]), Buffer.from(value)])
  const body = Buffer.concat([text('MQTT'), Buffer.from([4, 0xc2, 0, 60]), text(`${user}:guess`), text(user), text('wrong')])
  const socket = net.connect({ host: '127.0.0.1', port: Number(server.mqtt.split(':').pop()), localAddress: from })
  socket.end(Buffer.concat([Buffer.from([0x10, body.length]), body]))
  const [answer] = await once(socket, 'data')
  socket.destroy()
  return answer[3]
}

const rows = (page) => page.getByRole('region', { name: 'Events' }).locator('tbody tr')

test('live shows what happens as it happens, of one kind and of one user if asked', async () => {
  const page = await inside('#/live')
  await page.getByText(/^Following/).waitFor()
  const ben = await server.client('2', { device: 'laptop' })
  const come = rows(page).filter({ hasText: '2:laptop' }).filter({ hasText: 'connected' })
  await come.first().waitFor()
  assert.deepEqual(await violations(page), [])
  await ben.endAsync()
  await rows(page).filter({ hasText: '2:laptop' }).filter({ hasText: 'disconnected' }).first().waitFor()

  await page.getByLabel('refused', { exact: true }).check()
  await server.write(ann, '1', '77', secret).catch(() => {})
  await guess('127.0.0.7')
  await rows(page).filter({ hasText: '127.0.0.7' }).first().waitFor()
  await rows(page).filter({ hasText: 'not friends' }).first().waitFor()
  assert.equal(await rows(page).filter({ hasText: '2:laptop' }).count(), 0)

  await page.getByLabel('User', { exact: true }).fill('1')
  await page.keyboard.press('Enter')
  await rows(page).filter({ hasText: 'not friends' }).first().waitFor()
  assert.equal(await rows(page).filter({ hasText: '127.0.0.7' }).count(), 0)
  assert.ok(!(await page.content()).includes(secret))
  await rows(page).first().getByRole('link', { name: '1' }).click()
  await page.getByRole('heading', { name: 'User 1' }).waitFor()
  page.clean()
})

test('live can be paused, and shows then what came meanwhile', async () => {
  const page = await inside('#/live')
  await page.getByText(/^Following/).waitFor()
  await page.getByRole('button', { name: 'Pause' }).click()
  const before = await rows(page).count()
  const dev = await server.client('4')
  await page.getByText(/^Paused\. \d+ since then\.$/).waitFor()
  assert.equal(await rows(page).count(), before)
  await page.getByRole('button', { name: 'Go on' }).click()
  await rows(page).filter({ hasText: '4:phone' }).first().waitFor()
  dev.end(true)
  page.clean()
})

test('live closes its stream while it is hidden, and misses nothing', async () => {
  const page = await inside('#/live')
  await page.getByText(/^Following/).waitFor()
  const closed = page.waitForEvent('requestfailed', (request) => request.url().includes('/events'))
  const turn = (hidden) => page.evaluate((hidden) => {
    Object.defineProperty(document, 'hidden', { configurable: true, get: () => hidden })
    document.dispatchEvent(new Event('visibilitychange'))
  }, hidden)
  await turn(true)
  await closed
  const dev = await server.client('3', { device: 'while-hidden' })
  await sleep(500)
  const arrived = rows(page).filter({ hasText: '3:while-hidden' })
  assert.equal(await arrived.count(), 0)
  await turn(false)
  await arrived.first().waitFor()
  assert.equal(await arrived.count(), 1, 'it is shown once')
  dev.end(true)
  page.clean()
})

test('live keeps the newest five hundred', async () => {
  const page = await inside('#/live')
  await page.getByText(/^Following/).waitFor()
  // Of one user eight a minute are told one by one.
  for (let user = 100; user < 134; user++) {
    await server.user(String(user), `user${user}`)
    for (let times = 0; times < 8; times++) await (await server.client(String(user), { device: `d${times}`, listens: false })).endAsync()
  }
  await page.getByText('Following. 500 shown, the newest.').waitFor()
  await rows(page).filter({ hasText: '133:d7' }).first().waitFor()
  assert.equal(await rows(page).count(), 500)
  page.clean()
})

test('pushes show what came of each, those of one outcome if asked, and neither address nor text', async () => {
  await server.write(ann, '1', '2', secret)
  const page = await inside('#/pushes')
  const found = page.locator('tbody tr')
  const shown = async (text) => {
    for (let tries = 0; tries < 40 && !(await found.filter({ hasText: text }).count()); tries++) {
      await sleep(250)
      await go(page, '#/lockouts')
      await go(page, '#/pushes')
    }
    return found.filter({ hasText: text })
  }
  assert.equal(await (await shown('sent')).count(), 1)
  status = 410
  await server.write(ann, '1', '3', secret)
  const refused = await shown('refused')
  assert.equal(await refused.count(), 1)
  assert.match(await refused.textContent(), /3.*1.*refused.*410/)
  assert.deepEqual(await violations(page), [])
  const asked = (await server.api('GET', 'pushes')).items
  assert.equal(await found.count(), asked.length)
  for (const [outcome, count] of [['sent', 1], ['refused', 1], ['expired', 0]]) {
    await page.getByRole('radio', { name: outcome, exact: true }).check()
    if (count) await page.getByText(`${count} shown, that is all`).waitFor()
    else await page.getByText('Of the last 1,000 pushes, none has this outcome.').waitFor()
    assert.equal(await found.count(), count, outcome)
  }
  for (const hidden of [secret, 'hook-that-is-secret', 'of-the-webhook']) assert.ok(!(await page.content()).includes(hidden))
  await go(page, '#/server')
  await page.getByText('push.webhook_url').waitFor()
  for (const hidden of ['hook-that-is-secret', 'of-the-webhook']) assert.ok(!(await page.content()).includes(hidden))
  page.clean()
})

test('lockouts lists the addresses that are refused, and lifts one', async () => {
  const page = await inside('#/lockouts')
  await page.getByText('No address is locked out.').waitFor()
  for (let times = 0; times < guesses; times++) assert.equal(await guess('127.0.0.9'), 5)
  for (let times = 0; times < 3; times++) assert.equal(await guess('127.0.0.10'), 5)
  assert.equal(await guess('127.0.0.9'), 4)
  await go(page, '#/overview')
  await go(page, '#/lockouts')
  const found = page.locator('tbody tr')
  await found.filter({ hasText: '127.0.0.9' }).waitFor()
  assert.equal(await found.count(), 1, 'three failures refuse nobody')
  assert.match(await found.textContent(), /^127\.0\.0\.911/)
  assert.deepEqual(await violations(page), [])

  await page.getByRole('textbox', { name: 'Address' }).fill('127.0.0.10')
  await page.keyboard.press('Enter')
  await page.getByText('Not locked out. 3 failed logins count against it.').waitFor()
  await page.getByRole('button', { name: 'Forget the failures' }).click()
  await page.getByText('Nothing counts against this address.').waitFor()

  await page.getByRole('button', { name: 'Lift the lockout of 127.0.0.9' }).click()
  await page.getByText('No address is locked out.').waitFor()
  assert.deepEqual((await server.api('GET', 'lockouts')).items, [])
  assert.equal(await guess('127.0.0.9'), 5, 'it is judged again')
  page.clean()
})

test('with the token that may look, a lockout is shown and not lifted', async () => {
  for (let times = 0; times < guesses; times++) await guess('127.0.0.11')
  const page = await inside('#/lockouts', { token: readToken })
  await page.getByRole('button', { name: 'Lift the lockout of 127.0.0.11' }).click()
  await page.getByText('This token may look, and change nothing: use admin.token.').waitFor()
  assert.equal((await server.api('GET', 'lockouts/127.0.0.11')).locked, true)
  assert.equal(page.faults.filter((fault) => !fault.includes('403')).length, 0)
})
