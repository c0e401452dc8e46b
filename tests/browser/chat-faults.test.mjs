// What goes wrong around the chat page: too many failed logins, a store that fails, another tab that removes everything, friends who
// are none any more, addresses that name nobody, names and texts that are meant to do harm.

import assert from 'node:assert/strict'
import { after, before, test } from 'node:test'
import { launch } from './browser.mjs'
import { contextOf, Person } from './people.mjs'
import { Server, sleep } from './server.mjs'

const lockoutAfter = 3
let server, browser

before(async () => {
  server = await new Server({ JAM_MQTT_LIMITS__FAILED_AUTH: `${lockoutAfter}` }).start()
  for (const [id, name] of [['1', 'Ann'], ['2', 'Ben'], ['3', 'Carla']]) await server.user(id, name)
  for (const other of ['2', '3']) await server.api('PUT', `users/1/friends/${other}`)
  browser = await launch()
})

after(async () => {
  await browser?.close()
  await server?.stop()
})

async function logIn (page, user, token) {
  await page.getByLabel('User id').fill(user)
  await page.getByLabel('Token').fill(token)
  await page.getByRole('button', { name: 'Log in' }).click()
}

const lift = () => server.api('DELETE', 'lockouts/127.0.0.1')

/** From now on the browser neither reads nor keeps anything in IndexedDB. */
const breakStore = (page) => page.evaluate(() => {
  window.whole ??= IDBDatabase.prototype.transaction
  IDBDatabase.prototype.transaction = () => { throw new DOMException('the disk is gone', 'UnknownError') }
})
const mendStore = (page) => page.evaluate(() => { IDBDatabase.prototype.transaction = window.whole })

test('who is locked out after failed logins can turn back, and log in as somebody else', async (t) => {
  t.after(lift)
  const one = await Person.enters(browser, server.chat)
  const { page } = one
  const lockedOut = page.getByRole('status').filter({ hasText: 'Too many failed logins' })
  for (let tries = 0; tries < lockoutAfter + 2 && !await lockedOut.isVisible(); tries++) {
    await logIn(page, '1', 'wrong')
    await one.alert.or(lockedOut).waitFor()
  }
  await lockedOut.waitFor()
  assert.equal(await page.getByLabel('User id').isDisabled(), true)
  await page.getByRole('button', { name: 'Cancel' }).click()
  await lockedOut.waitFor({ state: 'hidden' })
  assert.equal(await page.getByLabel('User id').evaluate((field) => field === document.activeElement), true)
  await lift()
  await logIn(page, '2', 'token-of-2')
  await page.getByText('You are user 2').waitFor()
  one.isClean()
  await one.leaves()
})

test('whose open page is locked out reads that, not that there is no network', async (t) => {
  t.after(lift)
  const link = server.link('2').replace('token-of-2', 'wrong')
  const others = await Promise.all(Array.from({ length: lockoutAfter + 1 }, () => Person.enters(browser, link)))
  for (const { page } of others) await page.getByRole('heading', { name: 'Log in' }).waitFor()
  const one = await Person.enters(browser, server.link('2'))
  await one.page.getByRole('status').filter({ hasText: 'Too many failed logins' }).waitFor()
  await lift()
  await one.page.getByRole('button', { name: 'Try now' }).click()
  await one.page.getByRole('status').waitFor({ state: 'hidden' })
  for (const person of [one, ...others]) await person.leaves()
})

test('a store that fails is told in words, with what to do; it works again when the store does', async () => {
  const ben = await server.client('2', { listens: false })
  await server.write(ben, '2', '1', 'before it broke')
  const one = await Person.enters(browser, server.link('1'), { width: 320, height: 640 })
  const { page } = one
  await one.friend('Ben').getByText('1 unread').waitFor()
  await breakStore(page)
  await one.friend('Ben').click()
  await one.alert.filter({ hasText: 'cannot read the messages' }).filter({ hasText: 'the disk is gone' }).waitFor()
  await page.getByText('The messages cannot be read at the moment.').waitFor()
  await one.isAccessible()
  await one.writes('is this kept?')
  await one.alert.filter({ hasText: 'This browser cannot keep the message' }).waitFor()
  assert.equal(await one.field.inputValue(), 'is this kept?')
  await mendStore(page)
  await page.getByRole('button', { name: 'Try again' }).click()
  await one.sees('before it broke')
  await page.getByRole('button', { name: 'Close' }).click()
  await breakStore(page)
  await server.write(ben, '2', '1', 'not stored, so not acknowledged')
  await one.alert.filter({ hasText: 'cannot keep a message that has come' }).waitFor()
  await mendStore(page)
  await one.field.press('Enter')
  await one.sees('is this kept?', 'sent')
  one.isClean()
  await page.reload()
  await one.sees('not stored, so not acknowledged')
  ben.end(true)
  await one.leaves()
})

test('what cannot be noted as read, or removed, is told; and can be done later', async () => {
  const ben = await server.client('2', { listens: false })
  const one = await Person.enters(browser, server.link('1'))
  const { page } = one
  await one.opens('Carla')
  await server.write(ben, '2', '1', 'read me')
  await one.friend('Ben').getByText('unread').waitFor()
  await page.evaluate(() => {
    const whole = IDBDatabase.prototype.transaction
    IDBDatabase.prototype.transaction = function (stores, mode, ...more) {
      if (mode === 'readwrite') throw new DOMException('the disk is full', 'QuotaExceededError')
      return whole.call(this, stores, mode, ...more)
    }
  })
  await one.opens('Ben')
  await one.sees('read me')
  await one.alert.filter({ hasText: 'cannot note what you have read' }).waitFor()
  await page.getByRole('button', { name: 'Log out' }).click()
  await page.getByRole('button', { name: 'Remove them' }).click()
  await one.alert.filter({ hasText: 'The conversations could not be removed' }).waitFor()
  await one.isAccessible()
  one.isClean()
  await page.reload()
  ben.end(true)
  await one.leaves()
})

test('a tab with a wrong token is turned out, though another tab of the browser is connected; nobody else is', async () => {
  const context = await contextOf(browser)
  const one = await Person.entersIn(context, server.chat)
  await one.page.getByLabel('Stay logged in').check()
  await logIn(one.page, '1', 'token-of-1')
  await one.opens('Ben') // it is connected
  const turnedOut = async (tab) => {
    await tab.alert.filter({ hasText: 'The token is not the one of this user' }).waitFor()
    assert.equal(await tab.page.getByRole('list').count(), 0)
    assert.ok(!await tab.page.evaluate(() => JSON.stringify(sessionStorage).includes('wrong')))
  }
  const byLink = await Person.entersIn(context, server.link('1').replace('token-of-1', 'wrong'))
  await turnedOut(byLink)
  const atTheDoor = await Person.entersIn(context, server.link('2'))
  await atTheDoor.page.getByRole('button', { name: 'Log out' }).click()
  await logIn(atTheDoor.page, '1', 'wrong')
  await turnedOut(atTheDoor)
  await atTheDoor.isAccessible()
  await logIn(atTheDoor.page, '1', 'token-of-1')
  for (const { page } of [one, atTheDoor]) {
    await page.reload() // by what stays
    await page.getByText('You are user 1').waitFor()
  }
  await atTheDoor.opens('Ben')
  for (const person of [one, byLink, atTheDoor]) person.isClean()
  await context.close()
})

test('who logs in beside a tab that another device has logged out takes the chat back', async () => {
  const context = await contextOf(browser)
  const one = await Person.entersIn(context, server.link('1'))
  await one.opens('Ben')
  const device = await server.client('1')
  await one.alert.filter({ hasText: 'another device' }).waitFor()
  const tab = await Person.entersIn(context, server.chat)
  await logIn(tab.page, '1', 'token-of-1')
  await tab.opens('Ben')
  await one.alert.waitFor({ state: 'hidden' })
  await tab.writes('here I am')
  await tab.sees('here I am', 'sent')
  for (const person of [one, tab]) person.isClean()
  device.end(true)
  await context.close()
})

test('when the browser has no more room, nothing that was not stored is acknowledged, nothing stored is lost, and texts pass a picture', async () => {
  const ben = await server.client('2', { listens: false })
  const one = await Person.enters(browser, server.chat)
  const { page } = one
  const origin = new URL(server.chat).origin
  const session = await page.context().newCDPSession(page)
  await session.send('Storage.overrideQuotaForOrigin', { origin, quotaSize: 1_000_000 })
  await logIn(page, '1', 'token-of-1')
  await one.opens('Ben')
  await server.write(ben, '2', '1', 'before it was full')
  await one.sees('before it was full')
  await server.write(ben, '2', '1', 'large '.repeat(300_000))
  await one.alert.filter({ hasText: 'cannot keep a message that has come' }).waitFor()
  for (let text = 0; text < 20; text++) await server.write(ben, '2', '1', `text ${text}`)
  await one.sees('text 19')
  assert.equal((await server.api('GET', 'users/1/mailbox')).messages, 1, 'the large one is at the server')
  await session.send('Storage.overrideQuotaForOrigin', { origin })
  await page.reload()
  await one.sees('large large')
  await one.sees('before it was full')
  for (const end = Date.now() + 5000; (await server.api('GET', 'users/1/mailbox')).messages > 0;) assert.ok(Date.now() < end, 'it is acknowledged')
  one.isClean()
  ben.end(true)
  await one.leaves()
})

test('what was being stored when the page was left is sent when somebody comes back to it, once', async () => {
  const context = await contextOf(browser)
  let one = await Person.entersIn(context, server.link('1'))
  await one.opens('Ben')
  const sending = (page) => page.evaluate(() => Object.values(localStorage).filter((kept) => kept.includes('half stored')).length)
  const writesSlowly = async (...texts) => {
    await one.page.evaluate(() => {
      const { put } = IDBObjectStore.prototype
      IDBObjectStore.prototype.put = function (value, key) {
        const request = put.call(this, value, key)
        const on = () => { // it never comes to its commit
          if (window.isOver) this.transaction.abort()
          else this.get(key).onsuccess = on
        }
        on()
        return request
      }
    })
    await one.writes(...texts)
    await one.page.waitForFunction((count) => Object.values(localStorage).filter((kept) => kept.includes('half stored')).length === count, texts.length)
    assert.equal(await one.message('half stored').filter({ hasText: texts[0] }).count(), 0)
  }
  await writesSlowly('half stored 1', 'half stored 2')
  await one.page.reload()
  await one.sees('half stored 2', 'sent')
  assert.equal(await sending(one.page), 0)
  await writesSlowly('half stored 3')
  await one.page.close()
  one = await Person.entersIn(context, server.link('1'))
  await one.opens('Ben')
  await one.sees('half stored 3', 'sent')
  assert.deepEqual((await one.texts()).filter((text) => text.includes('half stored')), ['half stored 1', 'half stored 2', 'half stored 3'])
  await writesSlowly('half stored 4')
  await one.page.getByRole('button', { name: 'Log out' }).click()
  await one.page.getByText('You are logged out').waitFor()
  await one.page.evaluate(() => { window.isOver = true })
  await sleep(200)
  const kept = await one.page.evaluate(() => JSON.stringify(localStorage) + JSON.stringify(sessionStorage))
  assert.ok(!kept.includes('half stored'), 'who logs out leaves no text behind')
  one.isClean()
  await context.close()
})

test('what one tab removes, another has no login, no draft and no message of', async () => {
  const context = await contextOf(browser)
  const one = await Person.entersIn(context, server.link('1'))
  const tab = await Person.entersIn(context, server.link('1'))
  await tab.opens('Ben')
  await tab.field.fill('half a secret')
  await one.opens('Ben')
  await one.page.getByRole('button', { name: 'Log out' }).click()
  await one.page.getByRole('button', { name: 'Remove them' }).click()
  await tab.alert.filter({ hasText: 'removed from this browser in another tab' }).waitFor()
  await tab.page.getByRole('heading', { name: 'Log in' }).waitFor()
  await tab.isAccessible()
  const kept = await tab.page.evaluate(() => JSON.stringify(sessionStorage) + JSON.stringify(localStorage) + location.hash)
  assert.ok(!/token-of-1|half a secret|#/.test(kept), kept)
  await tab.page.reload()
  await tab.page.getByRole('heading', { name: 'Log in' }).waitFor()
  for (const person of [one, tab]) person.isClean()
  await context.close()
})

test('to who is no friend any more one cannot write; what was written stays, under their name', async (t) => {
  t.after(() => server.api('PUT', 'users/1/friends/3'))
  const carla = await server.client('3', { listens: false })
  await server.write(carla, '3', '1', 'while we are friends')
  const one = await Person.enters(browser, server.link('1'))
  await one.opens('Carla')
  await one.sees('while we are friends')
  await server.api('DELETE', 'users/1/friends/3')
  await one.page.getByText('You cannot write: Carla is no longer among your friends.').waitFor()
  await one.sees('while we are friends')
  assert.equal(await one.field.count(), 0)
  await one.isAccessible()
  await one.page.reload()
  await one.opens('Carla')
  await one.sees('while we are friends')
  await one.page.getByText('You cannot write: Carla is no longer among your friends.').waitFor()
  assert.equal(await one.field.count(), 0)
  await server.api('PUT', 'users/1/friends/3')
  await one.field.waitFor()
  one.isClean()
  carla.end(true)
  await one.leaves()
})

test('an address that names nobody leads to the list', async () => {
  const one = await Person.enters(browser, server.link('1'), { width: 320, height: 640 })
  const { page } = one
  await one.friend('Ben').waitFor()
  for (const hash of ['#/nobody', '#/%E0%A4%A', '#anything', '#/']) {
    await page.evaluate((to) => { location.hash = to }, hash)
    await one.friend('Ben').waitFor()
    await page.waitForFunction(() => location.hash === '' || location.hash === '#/', null, { timeout: 3000 })
    assert.equal(await page.getByRole('region', { name: /^Conversation with/ }).count(), 0, hash)
    await page.reload()
    await one.friend('Ben').waitFor()
  }
  await page.evaluate(() => { location.hash = '#/2' })
  await one.field.waitFor()
  one.isClean()
  await one.leaves()
})

test('names that hide, turn around, pile up or have no end are one line of what is seen', async () => {
  const odd = { 20: 'Zo\u202Eë\u2066\u200B\u0007 \n Zed', 21: '\u3164\u2800\u200B', 22: `Long ${'n'.repeat(60_000)}`, 23: `Z${'\u0301'.repeat(500)}alg`, 24: 'می\u200Cخواهم 👩\u200D👧' }
  for (const [id, name] of Object.entries(odd)) {
    await server.user(id)
    server.rename(id, name)
  }
  for (const id of Object.keys(odd)) await server.api('PUT', `users/3/friends/${id}`)
  const one = await Person.enters(browser, server.link('3'), { width: 320, height: 640 })
  await one.friend('Zoë Zed').waitFor()
  await one.friend('21').waitFor()
  await one.friend('Long nnn').waitFor()
  await one.friend('می\u200Cخواهم 👩\u200D👧').waitFor()
  const shown = await one.page.locator('.friend .name').allTextContents()
  assert.ok(shown.every((name) => name.length <= 101), `${shown.map(({ length }) => length)}`)
  assert.ok(shown.every((name) => !/[\u202A-\u202E\u2066-\u2069\u200B\p{Cc}]|\u0301{5}/u.test(name)), JSON.stringify(shown))
  await one.isAccessible()
  for (const name of ['Zoë Zed', 'Long nnn']) {
    await one.opens(name)
    await one.isAccessible()
    await one.page.getByRole('button', { name: 'Back to the list' }).click()
  }
  one.isClean()
  await one.leaves()
})

test('a name from the right stands apart from the sentence that it is in', async (t) => {
  await server.user('30', 'ليلى!')
  await server.api('PUT', 'users/1/friends/30')
  t.after(() => server.api('DELETE', 'users/1/friends/30'))
  const one = await Person.enters(browser, server.link('1'))
  await one.opens('ليلى!')
  const apart = (text) => one.page.getByText(text).locator('bdi').filter({ hasText: 'ليلى!' })
  await apart('Say hello to').waitFor()
  await server.api('PUT', 'users/30/blocks/1')
  await one.writes('hello')
  await apart('are not friends').waitFor()
  await server.api('DELETE', 'users/30/blocks/1')
  await server.api('PUT', 'users/1/blocks/30')
  await apart('You have blocked').last().waitFor()
  await server.api('DELETE', 'users/1/blocks/30')
  one.isClean()
  await one.leaves()
})
