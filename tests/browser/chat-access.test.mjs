// The chat page for who has no mouse, and for who does not see it: a whole visit by the keyboard, and what is there by role and name.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { launch } from './browser.mjs'
import { Person } from './people.mjs'
import { Server, sleep } from './server.mjs'

let server, browser, carla

before(async () => {
  server = await new Server().start()
  for (const [id, name] of [['1', 'Ann'], ['2', 'Ben'], ['3', 'Carla']]) await server.user(id, name)
  for (const other of ['2', '3']) await server.api('PUT', `users/1/friends/${other}`)
  carla = await server.client('3')
  browser = await launch()
})

after(async () => {
  await browser?.close()
  carla?.end(true)
  await server?.stop()
})

/** What has the focus, as it is called. */
const focused = (page) => page.evaluate(() => {
  const { activeElement: it } = document
  return (it.getAttribute('aria-label') ?? it.labels?.[0]?.textContent ?? it.textContent).trim()
})

/** Presses a key until what is called so has the focus. What it has passed. */
async function goes (page, name, key = 'Tab') {
  const passed = []
  while (passed.length < 40) {
    await page.keyboard.press(key)
    passed.push(await focused(page))
    if (name.test(passed.at(-1))) return passed
  }
  assert.fail(`${name} is not among ${passed}`)
}

test('a visit by the keyboard alone: log in, choose, write, read, be refused, and leave', async (t) => {
  const one = await Person.enters(browser, server.chat)
  t.after(() => one.leaves())
  const { page } = one
  const { keyboard } = page
  const press = async (...keys) => { for (const key of keys) await keyboard.press(key) }

  await goes(page, /^User id/)
  await keyboard.type('1')
  await goes(page, /^Token/)
  await keyboard.type('wrong')
  await press('Enter')
  await one.alert.getByText('The token is not the one of this user').waitFor()
  assert.match(await focused(page), /^Token/, 'where it is to be mended')
  await press('Control+A')
  await keyboard.type('token-of-1')
  await goes(page, /^Stay logged in/)
  await press('Space', 'Enter')
  await one.field.waitFor()

  const passed = await goes(page, /^Message to/)
  const at = (part) => passed.findIndex((name) => name.includes(part))
  assert.ok(at('Skip') === 0 && at('Log out') > 0 && at('Log out') < at('Ben') && at('Ben') < at('Emoji'), `${passed}`)
  await goes(page, /Skip/, 'Shift+Tab')
  await press('Enter')
  assert.match(await focused(page), /^Message to/)
  await goes(page, /Carla/, 'Shift+Tab')
  await press('Enter')
  assert.equal(await focused(page), 'Message to Carla')
  await keyboard.type('with the keyboard')
  await press('Enter')
  await one.sees('with the keyboard', 'delivered')
  await press('Shift+Tab', 'Shift+Tab', 'Enter', 'ArrowRight', 'Enter')
  assert.match(await one.field.inputValue(), /^\p{Extended_Pictographic}/u)
  await press('Enter')

  for (let line = 0; line < 40; line++) await server.write(carla, '3', '1', `line ${line}`)
  await one.message('line 39').waitFor()
  await goes(page, /^Messages$/, 'Shift+Tab')
  await press('Home')
  await page.getByRole('button', { name: 'Jump to the newest' }).waitFor()
  await goes(page, /Jump to the newest/)
  await press('Enter')
  await page.getByRole('button', { name: 'Jump to the newest' }).waitFor({ state: 'hidden' })

  await server.api('PUT', 'users/3/blocks/1')
  await goes(page, /^Message to/)
  await keyboard.type('are you there?')
  await press('Enter')
  await one.alert.waitFor()
  await server.api('DELETE', 'users/3/blocks/1')
  await goes(page, /^Retry$/, 'Shift+Tab')
  await press('Enter')
  await one.sees('are you there?', 'delivered')
  assert.equal(await focused(page), 'Message to Carla')

  await page.setViewportSize({ width: 320, height: 568 })
  await goes(page, /^Back to the list/, 'Shift+Tab')
  await press('Enter')
  assert.match(await focused(page), /Carla/)
  await goes(page, /^Log out/, 'Shift+Tab')
  await press('Enter')
  await page.getByRole('heading', { name: 'Log in' }).waitFor()
  await goes(page, /^Remove them/)
  await press('Enter')
  await page.getByText('You are logged out').waitFor({ state: 'hidden' })
  one.isClean()
})

test('who jumps to the newest is there, also while a scroll goes on', async (t) => {
  const one = await Person.enters(browser, server.link('1'))
  t.after(() => one.leaves())
  const { page } = one
  await one.opens('Carla')
  for (let line = 40; line < 80; line++) await server.write(carla, '3', '1', `line ${line}`)
  await one.message('line 79').waitFor()
  const place = page.getByRole('region', { name: 'Messages' })
  const jump = page.getByRole('button', { name: 'Jump to the newest' })
  for (const pauseMs of [0, 40, 80, 300]) {
    await place.press('Home')
    await jump.waitFor()
    await sleep(pauseMs)
    await jump.press('Enter')
    await jump.waitFor({ state: 'hidden' })
    await sleep(500)
    assert.equal(await jump.count(), 0, `a scroll of ${pauseMs} ms goes on after the jump`)
  }
  one.isClean()
})

test('what is there has a role and a name', async (t) => {
  const one = await Person.enters(browser, server.link('1'))
  t.after(() => one.leaves())
  const { page } = one
  const there = async (role, name, count = 1) => {
    const found = page.getByRole(role, { name, exact: typeof name === 'string' })
    await found.first().waitFor({ state: 'attached' })
    assert.equal(await found.count(), count, `${role} ${name}`)
    return found
  }
  const friends = await there('list', 'Friends')
  assert.equal(await friends.getByRole('listitem').count(), 2)
  await friends.getByRole('button', { name: 'Ben' }).click()
  await there('heading', 'Chat')
  await there('heading', 'Ben')
  await there('navigation', 'Conversations')
  await there('region', 'Conversation with Ben')
  await there('region', 'Messages')
  for (const name of ['Emoji', 'Attach a picture', 'Send', 'Log out']) await there('button', name)
  const log = await there('log', 'New messages')
  const field = await there('textbox', 'Message to Ben')
  const list = await there('list', 'Messages with Ben')
  await field.fill('Hello')
  await field.press('Enter')
  const own = list.getByRole('listitem').filter({ hasText: 'You: Hello' })
  await own.filter({ hasText: 'sent' }).waitFor()
  assert.equal(await own.getByRole('time').count(), 1)
  const ben = await server.client('2', { listens: false })
  await server.write(ben, '2', '1', 'Good evening')
  await log.getByText('Ben: Good evening').waitFor({ state: 'attached' })
  assert.equal(await log.getByText('Hello').count(), 0, 'what one has written oneself is not read aloud')
  assert.equal(await list.getByRole('listitem').filter({ hasText: 'Ben: Good evening' }).count(), 1)
  await server.write(carla, '3', '1', 'And I am here')
  await log.getByText('Carla: And I am here').waitFor({ state: 'attached' })
  await friends.getByRole('button', { name: /Carla.*And I am here.*1 unread/ }).waitFor()
  assert.equal(await page.getByRole('alert').count(), 0)
  await server.api('PUT', 'users/2/blocks/1')
  await field.fill('Are you angry?')
  await field.press('Enter')
  const alert = page.getByRole('alert')
  await alert.getByText('You and Ben are not friends').waitFor()
  assert.equal(await alert.count(), 1)
  for (const name of ['Retry', 'Delete']) await there('button', name)
  await server.api('DELETE', 'users/2/blocks/1')
  await page.context().setOffline(true)
  await page.getByRole('status').getByText('You are offline').waitFor()
  await there('button', 'Try now')
  await page.context().setOffline(false)
  one.isClean({ cuts: true })
  ben.end(true)
})
