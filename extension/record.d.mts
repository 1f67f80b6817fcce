export function fixture(har: object, endpoints: object[]): unknown[];
