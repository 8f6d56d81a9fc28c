#!/bin/bash
# Keeps the path and some variables for the listener, as the real env.sh does.

varCheckList=(
    LANG JAVA_HOME ANT_HOME M2_HOME ANDROID_HOME GRADLE_HOME NVM_BIN NVM_PATH
    VSTS_HTTP_PROXY VSTS_HTTP_PROXY_USERNAME VSTS_HTTP_PROXY_PASSWORD
    LD_LIBRARY_PATH PERL5LIB AGENT_TOOLSDIRECTORY
)

touch .env
for name in "${varCheckList[@]}"; do
    if [ -n "${!name}" ] && ! grep -q "^$name=" .env; then
        echo "$name=${!name}" >> .env
    fi
done
echo "$PATH" > .path
